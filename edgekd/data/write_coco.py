"""A `LabelledSet` as a COCO data set: one JSON that pycocotools loads and scores, with the pictures beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.write import new_dataset, place_picture
from edgekd.errors import DataError

Json = dict[str, Any]
Scores = Mapping[Path, np.ndarray]
"""Picture -> (n,) score of every object, 0..1."""


def coco_content(labels: LabelledSet, names: Mapping[Path, str], scores: Scores | None = None) -> Json:
    """Return the labels as COCO's JSON: pictures and objects count from 1, category ids are class ids + 1.

    Args:
        labels: the set; masks stay polygons or run lengths, an object without a mask has only its box.
        names: `file_name` of every picture.
        scores: written as `score` of each object, which COCO's tools pass over.
    """
    annotations: list[Json] = []
    for image_id, picture in enumerate(labels.pictures, 1):
        for index in range(len(picture)):
            entry = {"id": len(annotations) + 1, "image_id": image_id, **_annotation(picture, index)}
            if scores is not None:
                entry["score"] = round(float(scores[picture.path][index]), 4)
            annotations.append(entry)
    images = [
        {"id": image_id, "file_name": names[p.path], "height": p.size_px[0], "width": p.size_px[1]}
        for image_id, p in enumerate(labels.pictures, 1)
    ]
    categories = [{"id": index, "name": name} for index, name in enumerate(labels.class_names, 1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_coco(labels: LabelledSet, output: Path, scores: Scores | None = None) -> Path:
    """Write `annotations.json` and `images/` to a new or empty folder; return the JSON's path.

    Raises:
        DataError: the folder is not empty, or two pictures have one name.
    """
    names = {picture.path: picture.path.name for picture in labels.pictures}
    if len(set(names.values())) != len(labels.pictures):
        raise DataError(f"two pictures of {labels.source} have one file name; rename one")
    with new_dataset(output) as folder:
        (folder / "images").mkdir()
        for picture in labels.pictures:
            place_picture(picture.path, folder / "images" / picture.path.name)
        text = json.dumps(coco_content(labels, names, scores)) + "\n"
        (folder / "annotations.json").write_text(text, encoding="utf-8")
    return output / "annotations.json"


def _annotation(picture: LabelledPicture, index: int) -> Json:
    left, top, right, bottom = (round(float(value), 3) for value in picture.xyxy[index])
    mask = picture.segmentations[index]
    entry: Json = {
        "category_id": int(picture.class_id[index]) + 1,
        "bbox": [left, top, round(right - left, 3), round(bottom - top, 3)],
        "area": round(float(picture.area_px[index]), 2),
        "iscrowd": int(picture.crowd[index]),
    }
    if mask is not None:
        entry["segmentation"] = mask
    return entry
