"""What `edgekd label` leaves on disk: one folder that `finetune`, Ultralytics and pycocotools read at once.

DIR/data.yaml, images/{train,val}/, labels/{train,val}/    YOLO-seg, for Ultralytics
DIR/annotations.json                                       COCO with run lengths and scores, for finetune, pycocotools
DIR/split.json                                             file names of both parts, for finetune --split
DIR/tasks.json                                             Label Studio, masks as predictions with scores
DIR/look_at.jpg, look_at.csv                               the doubtful objects, worst first
DIR/report.json                                            what was accepted, shown and dropped
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import cv2

from edgekd.data.label import MaskedSet, Thresholds, doubtful, draw_doubtful
from edgekd.data.labels import LabelledSet
from edgekd.data.published import split_pictures
from edgekd.data.write import fill_dataset, grid, new_dataset
from edgekd.data.write_coco import coco_content
from edgekd.data.write_tools import label_studio_interface, label_studio_tasks
from edgekd.errors import DataError

SHEET_TILES, TILES_PER_ROW = 48, 8


def write_masked(
    masked: MaskedSet, thresholds: Thresholds, output: Path, val_fraction: float = 0.2, seed: int = 0
) -> dict[str, Any]:
    """Write everything and return the report.

    Args:
        masked: from `mask_boxes` or `label_pictures`.
        thresholds: those that decided, for the report and the sheet.
        output: a new or empty folder.
        val_fraction: share of pictures for validation, at least one.
        seed: of the split.

    Raises:
        DataError: there are fewer than two pictures with objects, or the folder is not empty.
    """
    splits = _split(masked.labels, val_fraction, seed)
    with new_dataset(output) as folder:
        return _fill(masked, thresholds, splits, folder, output)


def _fill(
    masked: MaskedSet, thresholds: Thresholds, splits: dict[str, LabelledSet], folder: Path, output: Path
) -> dict[str, Any]:
    data = fill_dataset(splits, folder, output, "outline")
    part = {picture.path: split for split, labels in splits.items() for picture in labels.pictures}
    names = {path: f"{split}/{path.name}" for path, split in part.items()}
    _write_json(folder / "annotations.json", coco_content(masked.labels, names, masked.scores))
    lists = {"train": "train", "validation": "val"}
    files = {key: sorted(path.name for path in part if part[path] == split) for key, split in lists.items()}
    _write_json(folder / "split.json", files)
    tasks = label_studio_tasks(
        masked.labels, lambda picture: f"/data/local-files/?d=images/{names[picture.path]}", masked.scores
    )
    _write_json(folder / "tasks.json", tasks)
    (folder / "label_studio.xml").write_text(label_studio_interface(masked.labels.class_names), encoding="utf-8")
    report = {
        "thresholds": asdict(thresholds),
        "n_pictures": len(masked.labels),
        "n_accepted": masked.n_accepted,
        "n_to_look_at": masked.n_shown,
        "n_dropped": masked.n_dropped,
        "n_boxes_outside": masked.n_outside,
        "incomplete_pictures": sorted(path.name for path in masked.incomplete),
        "data_set": asdict(data),
    }
    _write_json(folder / "report.json", report)
    _write_doubtful(masked, thresholds, folder)
    return report


def _split(labels: LabelledSet, val_fraction: float, seed: int) -> dict[str, LabelledSet]:
    """Split the pictures with objects, at least one to each part; empty ones are background to train on."""
    filled = tuple(picture for picture in labels.pictures if len(picture))
    background = tuple(picture for picture in labels.pictures if not len(picture))
    if len(filled) < 2:
        raise DataError(f"{len(filled)} of {len(labels)} pictures have objects, expected 2: one to validate with")
    share = min(max(val_fraction, 1 / len(filled)), 1 - 1 / len(filled))
    splits = split_pictures(replace(labels, pictures=filled), share, seed)
    train = replace(splits["train"], pictures=splits["train"].pictures + background)
    return {"train": train, "val": splits["val"]}


def _write_doubtful(masked: MaskedSet, thresholds: Thresholds, output: Path) -> None:
    rows = doubtful(masked, thresholds)
    lines = ["picture,object,class,score"]
    for picture, index, score in rows:
        name = picture.name_of(index).replace('"', '""')
        lines.append(f'"{picture.path.name}",{index},"{name}",{score:.4f}')
    (output / "look_at.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if rows:
        tiles = [draw_doubtful(*row) for row in rows[:SHEET_TILES]]
        cv2.imwrite(str(output / "look_at.jpg"), grid(tiles, TILES_PER_ROW))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
