"""The boxes of labels as a chain takes them: a `LabelledSet` in, `GivenBoxes` out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekd.data.labels import LabelledSet
from edgekd.data.read import read_labels
from edgekd.data.yolo import read_yaml
from edgekd.runtime.given import GivenBoxes
from edgekd.types import Detections


def read_boxes(path: Path, images: Path | None) -> tuple[GivenBoxes, int]:
    """Read the boxes of labels of any format, of a data YAML those of all parts that it has.

    Args:
        path: the labels.
        images: folder of the pictures, for formats that do not name it.

    Returns:
        The boxes, and how many were left out; see `given_boxes`.

    Raises:
        DataError: see `read_labels`.
    """
    if path.suffix.lower() not in (".yaml", ".yml"):
        return given_boxes(read_labels(path, images, needs_objects=False))
    parts = [part for part in ("train", "val", "test") if read_yaml(path).get(part)]
    found = [read_labels(path, split=part, needs_objects=False) for part in parts or ("val",)]
    return given_boxes(replace(found[0], pictures=tuple(p for labels in found for p in labels.pictures)))


def boxes_for(sources: Sequence[str | Path], path: Path | None, note: Callable[[str], None]) -> GivenBoxes | None:
    """Read the boxes of the sources of a run; the paths in a JSON are below the folder, where one is the only source.

    Args:
        sources: pictures and folders of the run.
        path: the labels; None gives no boxes.
        note: told of the boxes that are left out.

    Raises:
        DataError: see `read_labels`.
    """
    if path is None:
        return None
    only = Path(sources[0]) if len(sources) == 1 else None
    given, n_left_out = read_boxes(path, only if only and only.is_dir() and path.suffix == ".json" else None)
    if n_left_out:
        note(f"{path}: {n_left_out} boxes are left out: of crowds, without area or outside their picture")
    return given


def given_boxes(labels: LabelledSet) -> tuple[GivenBoxes, int]:
    """Return the boxes, clipped to their pictures, and how many had to be left out.

    Left out are regions of many objects, boxes without area and boxes that do not overlap their picture. Of a turned
    box the box around it is taken.
    """
    by_picture = {}
    n_left_out = 0
    for picture in labels.pictures:
        limit = np.array([*picture.size_px[::-1]] * 2, np.float32)
        clipped = picture.xyxy.clip(0, limit)
        kept = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(1) & ~picture.crowd
        n_left_out += int((~kept).sum())
        ones = np.ones(int(kept.sum()), np.float32)
        by_picture[picture.path.resolve()] = Detections(clipped[kept], ones, picture.class_id[kept])
    return GivenBoxes(labels.class_names, by_picture), n_left_out
