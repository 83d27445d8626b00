"""A data set in Ultralytics' YAML form before anything is trained on it: the YAML in, its labels and counts out.

Ultralytics itself drops a picture with a broken label in silence, and trains on what is left; here it is an error that
names the file and the line.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgekd.data.labels import LabelledSet
from edgekd.data.yolo import read_yaml, read_yolo
from edgekd.errors import DataError


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        name: `train` or `val`.
        n_pictures: pictures found.
        n_background: pictures without an object.
        n_objects: objects by class name.
        median_side_fraction: median of sqrt(width x height) of the objects, as a fraction of the picture.
    """

    name: str
    n_pictures: int
    n_background: int
    n_objects: dict[str, int]
    median_side_fraction: float


def check_dataset(path: Path) -> list[SplitReport]:
    """Check a data set: both splits, every label file, every line; return a report of `train` and of `val`.

    Raises:
        DataError: as `read_dataset`.
    """
    return [report_of(labels) for labels in read_dataset(path).values()]


def read_dataset(path: Path) -> dict[str, LabelledSet]:
    """Read both splits of a data YAML.

    Args:
        path: the YAML with `path`, `train`, `val` and `names`.

    Returns:
        `train` and `val`.

    Raises:
        DataError: a missing file or key, an empty split, or a label that is not `class x y w h` (or `class` and an
            outline of x y pairs) with a known class and fractions in 0..1.
    """
    content = read_yaml(path)
    missing = [key for key in ("train", "val", "names") if key not in content]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}; a data set needs train, val and names")
    splits = {split: read_yolo(path, split) for split in ("train", "val")}
    for split, labels in splits.items():
        if not labels.n_objects:
            raise DataError(f"the split {split} of {path} holds no object; put labels beside the pictures in labels/")
    return splits


def report_of(labels: LabelledSet) -> SplitReport:
    """Count what a split holds."""
    counts: Counter[str] = Counter()
    sides = [np.zeros(0)]
    for picture in labels.pictures:
        counts.update(labels.class_names[class_id] for class_id in picture.class_id)
        extent = (picture.xyxy[:, 2:] - picture.xyxy[:, :2]) / np.array(picture.size_px[::-1])
        sides.append(np.sqrt(extent.prod(1)))
    ordered = np.sort(np.concatenate(sides))
    return SplitReport(
        name=labels.split or "all",
        n_pictures=len(labels),
        n_background=sum(not len(picture) for picture in labels.pictures),
        n_objects=dict(counts.most_common()),
        median_side_fraction=float(ordered[len(ordered) // 2]) if len(ordered) else 0.0,
    )
