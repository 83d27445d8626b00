"""DOTA, oriented boxes on pictures of many thousand pixels: its text labels in, a `LabelledSet` or tiles of it out.

The tiling is Ultralytics' own (`split_trainval`); what is here is the reading of DOTA's labels as they are published.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from edgekd.data.inside import picture_inside, printable, read_text
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable, DataError, InputError
from edgekd.files import scratch_folder
from edgekd.runtime.picture_size import picture_size

DOTA_CLASSES = (
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court", "ground-track-field",
    "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter", "roundabout", "soccer-ball-field",
    "swimming-pool",
)  # fmt: skip
LABEL_FOLDERS = ("labelTxt", "labelTxt-v1.0/labelTxt", "labelTxt-v1.0")
DOTA_SUFFIXES = (".png", ".jpg", ".tif")


def is_dota(folder: Path) -> bool:
    """Whether a folder holds DOTA's labels beside `images/`."""
    return (folder / "images").is_dir() and any((folder / name).is_dir() for name in LABEL_FOLDERS)


def read_dota(folder: Path, limit: int | None = None) -> LabelledSet:
    """Read one split of DOTA v1.0: `images/` and `labelTxt/`; outlines are the four corners.

    Raises:
        DataError: a folder or a label file is missing, or a line is damaged or names an unknown class.
    """
    images = folder / "images"
    labels = next((folder / name for name in LABEL_FOLDERS if (folder / name).is_dir()), None)
    if not images.is_dir() or labels is None:
        raise DataError(f"{folder} needs images/ and labelTxt/; give the folder of DOTA as it is published")
    files = sorted(file for file in images.iterdir() if file.suffix in DOTA_SUFFIXES)[:limit]
    if not files:
        raise DataError(f"{images} holds no picture ({', '.join(DOTA_SUFFIXES)}); give the folder of DOTA")
    pictures = tuple(_picture(picture_inside(folder, f"images/{file.name}", str(folder)), labels) for file in files)
    return LabelledSet(folder, DOTA_CLASSES, pictures, folder.name, oriented=True)


def _picture(file: Path, labels: Path) -> LabelledPicture:
    path = labels / f"{file.stem}.txt"
    try:
        size_px = picture_size(file)
    except InputError as error:
        raise DataError(str(error)) from error
    classes, corners = [], np.zeros((0, 4, 2))
    for number, line in enumerate(read_text(path, "DOTA's labels, one file per picture").splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0].startswith(("imagesource:", "gsd:")):
            continue
        where = f"{path}, line {number}: {printable(line)[:60]!r}"
        try:
            quad = np.array(fields[:8], np.float64).reshape(1, 4, 2)
            classes.append(DOTA_CLASSES.index(fields[8]))
        except (ValueError, IndexError) as error:
            raise DataError(f"{where} is not a label of DOTA v1.0 ({error}), expected x1 y1 .. x4 y4 class") from error
        if not np.isfinite(quad).all():
            raise DataError(f"{where} holds a number that is not finite; correct it")
        corners = np.concatenate([corners, quad])
    sides = np.diff(np.concatenate([corners, corners[:, :1]], 1), axis=1)
    x, y = corners[..., 0], corners[..., 1]
    return LabelledPicture(
        path=file,
        size_px=size_px,
        xyxy=np.concatenate([corners.min(1), corners.max(1)], 1).astype(np.float32),
        class_id=np.array(classes, np.int32),
        area_px=np.abs((x * sides[..., 1] - y * sides[..., 0]).sum(1)) / 2,
        crowd=np.zeros(len(classes), np.bool_),
        segmentations=tuple([quad.ravel().tolist()] for quad in corners),
        class_names=DOTA_CLASSES,
    )


def tile_dota(source: Path, output: Path, limit: int | None, tile_px: int = 1024, overlap_px: int = 200) -> None:
    """Tile DOTA v1.0 with its oriented boxes into the pictures and labels of an Ultralytics OBB data set.

    Args:
        source: with `train/` and `val/`, each holding `images/` and `labelTxt/`.
        output: a new or empty folder; gets `images/{train,val}` and `labels/{train,val}`.
        limit: pictures per split, all by default.
        tile_px: side of a tile.
        overlap_px: pixels that neighbouring tiles share.

    Raises:
        DataError: as `read_dota`, or the folder is not empty.
        BackendUnavailable: shapely, which the tiler cuts outlines with, is not installed.
    """
    if not has_module("shapely"):
        raise BackendUnavailable("tiling DOTA needs shapely; install it with: pip install 'edgekd[train]'")
    from ultralytics.data.split_dota import split_trainval

    with scratch_folder("dota") as staging:
        for split in ("train", "val"):
            _stage_split(read_dota(source / split, limit), staging, split)
        split_trainval(str(staging), str(output), crop_size=tile_px, gap=overlap_px)


def _stage_split(labels: LabelledSet, staging: Path, split: str) -> None:
    """Lay out one split as Ultralytics' tiler reads it: linked pictures, labels as fractions."""
    images_out, labels_out = staging / "images" / split, staging / "labels" / split
    images_out.mkdir(parents=True)
    labels_out.mkdir(parents=True)
    for picture in labels.pictures:
        os.symlink(picture.path.resolve(), images_out / picture.path.name)
        limit = np.array(picture.size_px[::-1], np.float64)
        rows = []
        for index, class_id in enumerate(picture.class_id):
            fractions = (picture.rings(index)[0] / limit).ravel()
            rows.append(" ".join([str(class_id), *(f"{value:.6f}" for value in fractions)]))
        (labels_out / f"{picture.path.stem}.txt").write_text("".join(f"{row}\n" for row in rows))
