"""Turned boxes as DOTA and Ultralytics write them: submission files, one per class, and YOLO-obb labels.

A run over tiles of DOTA's pictures becomes a submission of whole pictures: tiles are known by their names, as
Ultralytics' tiler writes them (`P0001__1024__0___824` begins at x = 0 and y = 824 of P0001), their boxes are moved to
the picture, and boxes that two tiles found are suppressed by ProbIoU.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.files import write_text
from edgekd.runtime.oriented import boxes_of, suppress_turned
from edgekd.runtime.results.record import entries_of
from edgekd.types import ChainResult

MERGE_IOU = 0.3
"""ProbIoU above which boxes of two tiles are one object; Ultralytics found it to come closest to DOTA's own merging."""

_TILE = re.compile(r"(?P<picture>.+?)__\d+__(?P<x>\d+)___(?P<y>\d+)")
Entry = Mapping[str, Any]


def yolo_obb_lines(result: ChainResult) -> str:
    """Return the labels of one picture as Ultralytics reads turned boxes: `class x1 y1 .. x4 y4`, fractions.

    A corner outside the picture is moved to its edge, because Ultralytics refuses a label that leaves it.
    """
    corners = result.detections.corners
    if corners is None:
        raise InputError("the format is yolo-obb and the boxes are upright; give the format yolo")
    height, width = result.masks.size_px
    fractions = (corners.astype(np.float64) / (width, height)).clip(0, 1).reshape(-1, 8)
    rows = zip(result.detections.class_id, fractions, strict=True)
    return "".join(" ".join([str(number), *(f"{value:.6g}" for value in values)]) + "\n" for number, values in rows)


def submission_names(class_names: Sequence[str]) -> list[str]:
    """Return the file of every class, `Task1_NAME.txt`; what a file name cannot hold becomes a dash.

    Raises:
        InputError: two classes would share one file.
    """
    names = [f"Task1_{re.sub(r'[^0-9A-Za-z_.-]', '-', name)}.txt" for name in class_names]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"two classes would be written to {twice}; leave the format dota out")
    return names


def write_submission(folder: Path, entries: Iterable[Entry], class_names: Sequence[str]) -> None:
    """Write one file per class: `picture confidence x1 y1 .. x4 y4`, px; a class without an object has an empty one."""
    lines: list[list[str]] = [[] for _ in class_names]
    for entry in entries:
        for found in entry["objects"]:
            numbers = " ".join(f"{value:.2f}" for corner in found["corners"] for value in corner)
            lines[found["class_id"]].append(f"{entry['name']} {found['confidence']:.5f} {numbers}\n")
    for name, rows in zip(submission_names(class_names), lines, strict=True):
        write_text(folder / name, "".join(rows))


def merge_run(run: Path, folder: Path, iou: float = MERGE_IOU) -> tuple[int, int]:
    """Write the submission of a run over tiles.

    Args:
        run: the folder of a run with turned boxes; a picture whose name is not that of a tile stays as it is. After a
            run with the format `dota` every class has a file, as DOTA's server expects it.
        folder: where the files go.
        iou: ProbIoU above which two boxes of one class are one object.

    Returns:
        How many pictures, and how many boxes are left.

    Raises:
        InputError: the folder does not hold such a run, or a file cannot be written.
    """
    if not 0 <= iou <= 1:
        raise InputError(f"iou is {iou}, expected a number from 0 to 1; try {MERGE_IOU}")
    pictures: dict[str, list[Mapping[str, Any]]] = {}
    names: dict[int, str] = {}
    for entry in entries_of(run):
        picture, objects = _moved(entry, run)
        pictures.setdefault(picture, []).extend(objects)
        names |= {found["class_id"]: found["class_name"] for found in objects}
    if not names:
        raise InputError(f"{run} holds no turned box to merge; give the folder of a run of an oriented bundle")
    row_of = {number: row for row, number in enumerate(sorted(names))}
    merged = [
        {"name": name, "objects": [{**one, "class_id": row_of[one["class_id"]]} for one in _suppressed(objects, iou)]}
        for name, objects in sorted(pictures.items())
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for file in run.glob("Task1_*.txt"):  # of the format dota: also the classes of which nothing was found
        write_text(folder / file.name, "")
    write_submission(folder, merged, [names[number] for number in sorted(names)])
    return len(merged), sum(len(entry["objects"]) for entry in merged)


def _moved(entry: Entry, run: Path) -> tuple[str, list[dict[str, Any]]]:
    """The picture that a tile belongs to, and the tile's objects in pixels of it."""
    tile = _TILE.fullmatch(entry["name"])
    offset = np.array([int(tile["x"]), int(tile["y"])] if tile else [0, 0], np.float64)
    objects = []
    for found in entry["objects"]:
        if "corners" not in found:
            raise InputError(f"{run} holds upright boxes, expected the run of an oriented bundle")
        objects.append({**found, "corners": (np.array(found["corners"]) + offset).tolist()})
    return (tile["picture"] if tile else entry["name"]), objects


def _suppressed(objects: list[Mapping[str, Any]], iou: float) -> list[Mapping[str, Any]]:
    ordered = sorted(objects, key=lambda found: -float(found["confidence"]))
    corners: NDArray[np.float64] = np.array([found["corners"] for found in ordered], np.float64).reshape(-1, 4, 2)
    classes = np.array([found["class_id"] for found in ordered], np.int32)
    return [ordered[row] for row in suppress_turned(boxes_of(corners), classes, iou)]
