"""DOTA, oriented boxes on pictures of many thousand pixels: its text labels in, tiles of 1024 px with outlines out.

The tiling is Ultralytics' own (`split_trainval`); what is here is the reading of DOTA's labels as they are published.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import yaml
from PIL import Image

from edgekd.data.write import DataReport, finish_dataset
from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable, DataError

DOTA_CLASSES = (
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court", "ground-track-field",
    "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter", "roundabout", "soccer-ball-field",
    "swimming-pool",
)  # fmt: skip
LABEL_FOLDERS = ("labelTxt", "labelTxt-v1.0/labelTxt", "labelTxt-v1.0")
PICTURE_SUFFIXES = (".png", ".jpg", ".tif")


def convert_dota(
    source: Path, output: Path, limit: int | None, tile_px: int = 1024, overlap_px: int = 200
) -> DataReport:
    """Tile DOTA v1.0 with its oriented boxes into an Ultralytics OBB data set.

    Args:
        source: with `train/` and `val/`, each holding `images/` and `labelTxt/`.
        output: a new or empty folder.
        limit: pictures per split, all by default.
        tile_px: side of a tile.
        overlap_px: pixels that neighbouring tiles share.

    Raises:
        DataError: a folder is missing, a label line is damaged or names an unknown class.
        BackendUnavailable: shapely, which the tiler cuts outlines with, is not installed.
    """
    if not has_module("shapely"):
        raise BackendUnavailable("tiling DOTA needs shapely; install it with: pip install 'edgekd[train]'")
    from ultralytics.data.split_dota import split_trainval

    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output} is not empty; give a new folder with -o")
    with tempfile.TemporaryDirectory(prefix="dota-") as staging:
        for split in ("train", "val"):
            _stage_split(source, Path(staging), split, limit)
        split_trainval(staging, str(output), crop_size=tile_px, gap=overlap_px)
    content = {"path": str(output.resolve()), "train": "images/train", "val": "images/val"}
    names = dict(enumerate(DOTA_CLASSES))
    (output / "data.yaml").write_text(yaml.safe_dump(content | {"names": names}, sort_keys=False))
    report = DataReport()
    finish_dataset(output, report)
    return report


def _stage_split(source: Path, staging: Path, split: str, limit: int | None) -> None:
    """Lay out one split as Ultralytics' tiler reads it: linked pictures, labels as fractions."""
    pictures = source / split / "images"
    labels = next((source / split / name for name in LABEL_FOLDERS if (source / split / name).is_dir()), None)
    if not pictures.is_dir() or labels is None:
        raise DataError(f"{source / split} needs images/ and labelTxt/; give the folder of DOTA as it is published")
    images_out, labels_out = staging / "images" / split, staging / "labels" / split
    images_out.mkdir(parents=True)
    labels_out.mkdir(parents=True)
    files = sorted(file for file in pictures.iterdir() if file.suffix in PICTURE_SUFFIXES)[:limit]
    if not files:
        raise DataError(f"{pictures} holds no picture ({', '.join(PICTURE_SUFFIXES)}); give the folder of DOTA")
    for file in files:
        os.symlink(file.resolve(), images_out / file.name)
        with Image.open(file) as picture:
            size = picture.size
        rows = read_dota_labels(labels / f"{file.stem}.txt", size)
        (labels_out / f"{file.stem}.txt").write_text("".join(f"{row}\n" for row in rows))


def read_dota_labels(path: Path, size_px: tuple[int, int]) -> list[str]:
    """Lines `class x1 y1 .. x4 y4` as fractions of a picture of `size_px` = (width, height).

    Two header lines (`imagesource:`, `gsd:`) are skipped; a line is `x1 y1 .. x4 y4 class difficult`.

    Raises:
        DataError: the file is missing, or a line is damaged or names an unknown class.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; every picture of DOTA has one label file")
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fields = line.split()
        if not fields or ":" in fields[0]:
            continue
        try:
            corners = [float(value) for value in fields[:8]]
            class_id = DOTA_CLASSES.index(fields[8])
        except (ValueError, IndexError) as error:
            raise DataError(f"{path}, line {number}: {line[:60]!r} is no label of DOTA v1.0 ({error})") from error
        fractions = [value / size_px[index % 2] for index, value in enumerate(corners)]
        rows.append(" ".join([str(class_id), *(f"{value:.6f}" for value in fractions)]))
    return rows
