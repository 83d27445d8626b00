"""A `LabelledSet` on disk in the form of another tool: one call, one new folder that is whole by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, get_args

from edgekd.data.labels import LabelledSet
from edgekd.data.published import split_pictures
from edgekd.data.write import Form, place_picture, start_dataset, write_dataset
from edgekd.data.write_coco import write_coco
from edgekd.data.write_tools import csv_text, label_studio_tasks, labelme_content
from edgekd.errors import DataError

Target = Literal["coco", "yolo", "yolo-seg", "yolo-obb", "labelme", "label-studio", "csv"]
TARGETS: tuple[Target, ...] = get_args(Target)
_FORMS: dict[Target, Form] = {"yolo": "box", "yolo-seg": "outline", "yolo-obb": "turned"}


def convert_labels(labels: LabelledSet, target: Target, output: Path, val_fraction: float = 0.2, seed: int = 0) -> Path:
    """Write labels in another form, and the pictures with them.

    Args:
        labels: from `read_labels`.
        target: `coco`: annotations.json and images/. `yolo`, `yolo-seg`, `yolo-obb`: an Ultralytics data set of boxes,
            outlines or turned boxes, split by picture. `labelme`: pictures with a JSON beside each. `label-studio`:
            tasks.json and images/. `csv`: labels.csv, no pictures.
        output: a new or empty folder.
        val_fraction: share of pictures for validation, of the YOLO forms.
        seed: of their split.

    Returns:
        The file to open first, for LabelMe the folder.

    Raises:
        DataError: the folder is not empty, two pictures have one name, or a picture is damaged.
    """
    if target in _FORMS:
        write_dataset(split_pictures(labels, val_fraction, seed), output, _FORMS[target])
        return output / "data.yaml"
    if target == "coco":
        return write_coco(labels, output)
    start_dataset(output)
    output.mkdir(parents=True, exist_ok=True)
    if target == "csv":
        return _write(output / "labels.csv", csv_text(labels))
    stems = [picture.path.stem for picture in labels.pictures]
    if len(set(stems)) != len(stems):
        raise DataError(f"two pictures of {labels.source} have one name before the suffix; rename one")
    if target == "labelme":
        for picture in labels.pictures:
            place_picture(picture.path, output / picture.path.name)
            _write(output / f"{picture.path.stem}.json", json.dumps(labelme_content(picture), indent=1))
        return output
    (output / "images").mkdir()
    for picture in labels.pictures:
        place_picture(picture.path, output / "images" / picture.path.name)
    tasks = label_studio_tasks(labels, lambda picture: f"/data/local-files/?d=images/{picture.path.name}")
    return _write(output / "tasks.json", json.dumps(tasks))


def _write(path: Path, text: str) -> Path:
    path.write_text(text + "\n" * (not text.endswith("\n")), encoding="utf-8")
    return path
