"""Labelled pictures on their way to training: a `LabelledSet` per split goes in, an Ultralytics data set comes out.

    DIR/data.yaml, images/{train,val}/, labels/{train,val}/, report.json, samples.jpg

Pictures are hard links where the file system allows it and copies elsewhere, so that the folder is whole by itself.
Boxes are cut at the picture's edge and what is left under a pixel is dropped, and both are counted, never silent.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.data.check import SplitReport, check_dataset
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.read import read_pixels
from edgekd.data.yolo import read_yolo
from edgekd.errors import DataError
from edgekd.files import atomic_folder
from edgekd.types import UInt8Array

Form = Literal["box", "outline", "turned"]
SMALLEST_SIDE_PX = 1.0
COLOURS = ((66, 133, 244), (52, 168, 83), (234, 67, 53), (251, 188, 5), (171, 71, 188), (0, 172, 193))


@dataclass
class DataReport:
    """What was written and what had to be mended.

    Attributes:
        splits: of the finished data set.
        n_cut: boxes that left the picture and were cut.
        n_dropped: boxes of less than a pixel that were left out.
        n_crowds: regions of many objects that were left out.
    """

    splits: list[SplitReport] = field(default_factory=list)
    n_cut: int = 0
    n_dropped: int = 0
    n_crowds: int = 0


def write_dataset(splits: Mapping[str, LabelledSet], output: Path, form: Form = "box") -> DataReport:
    """Write an Ultralytics data set, check it as training will, and draw samples of it.

    Args:
        splits: `train` and `val`, with the same class names.
        output: a new or empty folder.
        form: what a line says of an object: its `box`, its `outline` (YOLO-seg), or the four corners of the
            `turned` box around it (YOLO-obb).

    Raises:
        DataError: the folder is not empty, a split is empty, a picture is damaged or two have one name.
    """
    with new_dataset(output) as folder:
        return fill_dataset(splits, folder, output, form)


def fill_dataset(splits: Mapping[str, LabelledSet], folder: Path, output: Path, form: Form) -> DataReport:
    """Write the files of `write_dataset` to a folder of `new_dataset`; arguments and errors as there."""
    report = DataReport()
    for split, labels in splits.items():
        if not labels.pictures:
            raise DataError(f"the split {split} would be empty; give more pictures or another share for validation")
        _write_split(split, labels, folder, report, form)
    finish_dataset(folder, output, next(iter(splits.values())).class_names, report)
    return report


@contextmanager
def new_dataset(output: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes the data set `output` when the block ends without an exception.

    Raises:
        DataError: the folder is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise DataError(f"{output} is not an empty folder; give a new folder with -o")
    with atomic_folder(output, lambda _: None) as folder:
        yield folder


def finish_dataset(folder: Path, output: Path, class_names: Sequence[str], report: DataReport) -> None:
    """Write `data.yaml`, check the data set, write `report.json`, draw `samples.jpg`; `report` is filled in.

    Args:
        folder: where the data set is made; it has `images/` and `labels/`.
        output: where it will lie, which is what `data.yaml` names.
        class_names: of all splits.
        report: what was mended on the way.
    """
    splits = [path.name for path in sorted((folder / "images").iterdir())]
    _write_description(folder, folder, class_names, splits)
    report.splits = check_dataset(folder / "data.yaml")
    (folder / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    samples = read_yolo(folder / "data.yaml", "train", limit=12)
    cv2.imwrite(str(folder / "samples.jpg"), draw_sheet(samples.pictures))
    _write_description(folder, output, class_names, splits)


def _write_description(folder: Path, root: Path, class_names: Sequence[str], splits: Sequence[str]) -> None:
    import yaml

    content = {"path": str(root.resolve())} | {split: f"images/{split}" for split in splits}
    names = {index: str(name) for index, name in enumerate(class_names)}
    text = yaml.safe_dump(content | {"names": names}, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, encoding="utf-8")


def _write_split(split: str, labels: LabelledSet, output: Path, report: DataReport, form: Form) -> None:
    images, texts = output / "images" / split, output / "labels" / split
    images.mkdir(parents=True)
    texts.mkdir(parents=True)
    written: set[str] = set()
    for picture in labels.pictures:
        if picture.path.stem in written:
            raise DataError(f"two pictures of the split {split} are named {picture.path.stem}; rename one")
        written.add(picture.path.stem)
        read_pixels(picture)
        place_picture(picture.path, images / picture.path.name)
        report.n_crowds += int(picture.crowd.sum())
        single = picture.take(~picture.crowd)
        rows = [_row(single, index, report, form) for index in range(len(single))]
        text = "".join(f"{row}\n" for row in rows if row is not None)
        (texts / f"{picture.path.stem}.txt").write_text(text)


def place_picture(source: Path, target: Path) -> None:
    """Hard-link a picture, or copy it where links are not possible."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def _row(picture: LabelledPicture, index: int, report: DataReport, form: Form) -> str | None:
    limit = np.array(picture.size_px[::-1], np.float64)
    corners = picture.xyxy[index].astype(np.float64).reshape(2, 2)
    inside = corners.clip(0, limit)
    report.n_cut += bool((inside != corners).any())
    if (inside[1] - inside[0] < SMALLEST_SIDE_PX).any():
        report.n_dropped += 1
        return None
    if form == "outline":
        values = (picture.one_outline(index) / limit).clip(0, 1).ravel()
    elif form == "turned":
        values = (picture.turned_corners(index) / limit).clip(0, 1).ravel()
    else:
        values = np.concatenate([inside.mean(0) / limit, (inside[1] - inside[0]) / limit])
    return " ".join([str(picture.class_id[index]), *(f"{value:.6f}" for value in values)])


def draw_sheet(pictures: Sequence[LabelledPicture], tile_px: int = 320, per_row: int = 4) -> UInt8Array:
    """Draw pictures with their outlines or boxes on one sheet, (rows * tile_px, per_row * tile_px, 3) uint8 BGR.

    Raises:
        DataError: a picture cannot be read.
    """
    tiles = []
    for picture in pictures:
        tile = cv2.resize(read_pixels(picture), (tile_px, tile_px), interpolation=cv2.INTER_AREA)
        scale = tile_px / np.array(picture.size_px[::-1], np.float64)
        for index in range(len(picture)):
            outlines = [(ring * scale - 0.5).round().astype(np.int32) for ring in picture.rings(index)]
            cv2.polylines(tile, outlines, True, COLOURS[int(picture.class_id[index]) % len(COLOURS)], 2)
        tiles.append(np.asarray(tile, np.uint8))
    return grid(tiles, per_row)


def grid(tiles: Sequence[UInt8Array], per_row: int) -> NDArray[np.uint8]:
    """Lay equal tiles (h, w, 3) out in rows, the last filled up with black."""
    filled = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % per_row)]
    rows = [np.hstack(filled[start : start + per_row]) for start in range(0, len(filled), per_row)]
    return np.asarray(np.vstack(rows), np.uint8)
