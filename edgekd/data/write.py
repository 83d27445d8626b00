"""Labelled pictures on their way to training: a list of pictures with boxes goes in, an Ultralytics data set comes out.

    DIR/data.yaml, images/{train,val}/, labels/{train,val}/, report.json, samples.jpg

Pictures are linked, not copied. Boxes are cut at the picture's edge and what is left under a pixel is dropped, and both
are counted in the report, never silent.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from edgekd.data.check import SplitReport, check_dataset, label_of, list_pictures, read_labels
from edgekd.errors import DataError

SMALLEST_SIDE_PX = 1.0
COLOURS = ((66, 133, 244), (52, 168, 83), (234, 67, 53), (251, 188, 5), (171, 71, 188), (0, 172, 193))


@dataclass(frozen=True)
class Box:
    """One object: class index and xyxy in pixels of the picture."""

    class_id: int
    xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class Picture:
    """A picture file, its size in pixels and its objects."""

    file: Path
    width_px: int
    height_px: int
    boxes: tuple[Box, ...]


@dataclass
class DataReport:
    """What was written and what had to be mended.

    Attributes:
        splits: of the finished data set.
        n_cut: boxes that left the picture and were cut.
        n_dropped: boxes of less than a pixel that were left out.
    """

    splits: list[SplitReport] = field(default_factory=list)
    n_cut: int = 0
    n_dropped: int = 0


def split_pictures(pictures: Sequence[Picture], fraction: float, seed: int) -> dict[str, list[Picture]]:
    """Split by picture: file names sorted, shuffled by `random.Random(seed)`, the first `fraction` is `val`."""
    ordered = sorted(pictures, key=lambda picture: picture.file.name)
    random.Random(seed).shuffle(ordered)
    n_val = round(len(ordered) * fraction)
    return {"train": ordered[n_val:], "val": ordered[:n_val]}


def write_dataset(splits: dict[str, list[Picture]], class_names: Sequence[str], output: Path) -> DataReport:
    """Write an Ultralytics data set, check it as training will, and draw samples of it.

    Args:
        splits: `train` and `val`.
        class_names: in the order of the class ids.
        output: a new or empty folder.

    Raises:
        DataError: the folder is not empty, a split is empty, a picture is missing or two have one name.
    """
    if output.exists() and any(output.iterdir()):
        raise DataError(f"{output} is not empty; give a new folder with -o")
    report = DataReport()
    for split, pictures in splits.items():
        if not pictures:
            raise DataError(f"the split {split} would be empty; give more pictures or another share for validation")
        _write_split(split, pictures, output, report)
    content = {"path": str(output.resolve()), "train": "images/train", "val": "images/val"}
    names = {index: str(name) for index, name in enumerate(class_names)}
    (output / "data.yaml").write_text(yaml.safe_dump(content | {"names": names}, sort_keys=False))
    finish_dataset(output, report)
    return report


def finish_dataset(output: Path, report: DataReport) -> None:
    """Check the data set in `output`, write `report.json` and draw `samples.jpg`."""
    report.splits = check_dataset(output / "data.yaml")
    (output / "report.json").write_text(json.dumps(asdict(report), indent=1) + "\n")
    draw_samples(output)


def _write_split(split: str, pictures: list[Picture], output: Path, report: DataReport) -> None:
    images, labels = output / "images" / split, output / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for picture in pictures:
        link = images / picture.file.name
        if link.is_symlink() or link.exists():
            raise DataError(f"two pictures of the split {split} are named {picture.file.name}; rename one")
        if not picture.file.is_file():
            raise DataError(f"{picture.file} is named by the labels and does not exist; check the folder of pictures")
        os.symlink(picture.file.resolve(), link)
        rows = [row for box in picture.boxes if (row := _label_row(box, picture, report)) is not None]
        (labels / picture.file.name).with_suffix(".txt").write_text("".join(f"{row}\n" for row in rows))


def _label_row(box: Box, picture: Picture, report: DataReport) -> str | None:
    x1, y1, x2, y2 = box.xyxy
    left, top = max(x1, 0.0), max(y1, 0.0)
    right, bottom = min(x2, float(picture.width_px)), min(y2, float(picture.height_px))
    report.n_cut += (left, top, right, bottom) != (x1, y1, x2, y2)
    if right - left < SMALLEST_SIDE_PX or bottom - top < SMALLEST_SIDE_PX:
        report.n_dropped += 1
        return None
    width, height = picture.width_px, picture.height_px
    fractions = (
        (left + right) / 2 / width,
        (top + bottom) / 2 / height,
        (right - left) / width,
        (bottom - top) / height,
    )
    return " ".join([str(box.class_id), *(f"{value:.6f}" for value in fractions)])


def draw_samples(folder: Path, n_pictures: int = 12, tile_px: int = 320) -> Path:
    """Draw the first training pictures with their labels, boxes or outlines, on one sheet `samples.jpg`."""
    import cv2

    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    tiles = []
    for file in list_pictures(folder / "images" / "train")[:n_pictures]:
        picture = cv2.resize(cv2.imread(str(file)), (tile_px, tile_px), interpolation=cv2.INTER_AREA)
        for class_id, values in read_labels(label_of(file), len(names)) if label_of(file).is_file() else []:
            outline = (_corners(values) * tile_px).round().astype(np.int32)
            cv2.polylines(picture, [outline], True, COLOURS[class_id % len(COLOURS)], 2)
        tiles.append(picture)
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 4)
    rows = [np.hstack(tiles[start : start + 4]) for start in range(0, len(tiles), 4)]
    output = folder / "samples.jpg"
    cv2.imwrite(str(output), np.vstack(rows))
    return output


def _corners(values: list[float]) -> NDArray[np.float64]:
    """Corners (n, 2) of a label as fractions."""
    if len(values) > 4:
        return np.array(values).reshape(-1, 2)
    x, y, w, h = values
    left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
