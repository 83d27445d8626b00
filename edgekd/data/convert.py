"""A `LabelledSet` on disk in the form of another tool: one call, one new folder that is whole by itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

from edgekd.choices import LabelForm
from edgekd.data.labels import LabelledSet
from edgekd.data.published import split_pictures
from edgekd.data.write import Form, new_dataset, place_picture, write_dataset
from edgekd.data.write_coco import write_coco
from edgekd.data.write_tools import csv_text, label_studio_interface, label_studio_tasks, labelme_content
from edgekd.errors import DataError

TARGETS: tuple[LabelForm, ...] = get_args(LabelForm)
_FORMS: dict[LabelForm, Form] = {"yolo": "box", "yolo-seg": "outline", "yolo-obb": "turned"}


def convert_labels(
    labels: LabelledSet, target: LabelForm, output: Path, val_fraction: float = 0.2, seed: int = 0
) -> Path:
    """Write labels in another form, and the pictures with them.

    Args:
        labels: from `read_labels`.
        target: `coco`: annotations.json and images/. `yolo`, `yolo-seg`, `yolo-obb`: an Ultralytics data set of boxes,
            outlines or turned boxes, split by picture. `labelme`: pictures with a JSON beside each. `label-studio`:
            tasks.json, label_studio.xml and images/. `csv`: labels.csv, no pictures.
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
    stems = [picture.path.stem for picture in labels.pictures]
    if target != "csv" and len(set(stems)) != len(stems):
        raise DataError(f"two pictures of {labels.source} have one name before the suffix; rename one")
    with new_dataset(output) as folder:
        return output / _write_for_tool(labels, target, folder)


def _write_for_tool(labels: LabelledSet, target: LabelForm, folder: Path) -> str:
    """Write the files and return the name of the one to open, empty for the folder itself."""
    if target == "csv":
        return _write(folder / "labels.csv", csv_text(labels))
    pictures = folder if target == "labelme" else folder / "images"
    pictures.mkdir(exist_ok=True)
    for picture in labels.pictures:
        place_picture(picture.path, pictures / picture.path.name)
        if target == "labelme":
            _write(folder / f"{picture.path.stem}.json", json.dumps(labelme_content(picture), indent=1))
    if target == "labelme":
        return ""
    _write(folder / "label_studio.xml", label_studio_interface(labels.class_names))
    tasks = label_studio_tasks(labels, lambda picture: f"/data/local-files/?d=images/{picture.path.name}")
    return _write(folder / "tasks.json", json.dumps(tasks))


def _write(path: Path, text: str) -> str:
    path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    return path.name
