"""Published data sets as they come: COCO JSON, NWPU VHR-10 and DIOR in, pictures with boxes out.

Boxes leave in xyxy pixels, classes as indices. What a file says wrongly is an error that names the file and the entry.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from importlib import resources
from pathlib import Path
from typing import Any

from edgekd.data.write import Box, Picture
from edgekd.errors import DataError

DIOR_CLASSES = (
    "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam", "Expressway-Service-area",
    "Expressway-toll-station", "golffield", "groundtrackfield", "harbor", "overpass", "ship", "stadium", "storagetank",
    "tenniscourt", "trainstation", "vehicle", "windmill",
)  # fmt: skip
NWPU_SPLIT = "nwpu_seed0.json"


def read_coco(annotations: Path, pictures: Path | None = None) -> tuple[list[Picture], list[str]]:
    """Read a COCO detection file.

    Args:
        annotations: the JSON file.
        pictures: folder of the picture files; by default `images` beside the file, else the file's own folder.

    Returns:
        Pictures with boxes (crowd regions left out) and the class names, ordered by category id.

    Raises:
        DataError: the file is missing, no JSON, or lacks an entry that detection needs.
    """
    content = _read_json(annotations)
    beside = annotations.parent / "images"
    folder = pictures or (beside if beside.is_dir() else annotations.parent)
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        class_ids = {category["id"]: index for index, category in enumerate(categories)}
        boxes: dict[Any, list[Box]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            if annotation.get("iscrowd"):
                continue
            x, y, width, height = (float(value) for value in annotation["bbox"])
            box = Box(class_ids[annotation["category_id"]], (x, y, x + width, y + height))
            boxes[annotation["image_id"]].append(box)
        found = [
            Picture(folder / image["file_name"], int(image["width"]), int(image["height"]), tuple(boxes[image["id"]]))
            for image in content["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{annotations} is no COCO detection file: {type(error).__name__} {error}") from error
    return found, [str(category["name"]) for category in categories]


def read_nwpu(source: Path) -> tuple[dict[str, list[Picture]], list[str]]:
    """Read NWPU VHR-10 in COCO form (`annotations.json`, `images/`) with the project's recorded split.

    Raises:
        DataError: a picture of the recorded split is not there.
    """
    pictures, names = read_coco(source / "annotations.json")
    by_name = {picture.file.name: picture for picture in pictures}
    split = json.loads(resources.files("edgekd.data").joinpath("splits", NWPU_SPLIT).read_text())
    missing = [name for name in [*split["train"], *split["validation"]] if name not in by_name]
    if missing:
        raise DataError(f"{source} lacks {len(missing)} pictures of the recorded split, the first is {missing[0]}")
    chosen = {"train": split["train"], "val": split["validation"]}
    return {key: [by_name[name] for name in files] for key, files in chosen.items()}, names


def read_dior(source: Path) -> tuple[dict[str, list[Picture]], list[str]]:
    """Read DIOR with horizontal boxes, as published: trainval for training, test for validation.

    Expected are `Annotations/*.xml` (or `Annotations/Horizontal Bounding Boxes/*.xml`), `JPEGImages-trainval/` and
    `JPEGImages-test/`; a picture belongs to the split in whose folder it lies.

    Raises:
        DataError: a folder is missing, or an XML file is damaged or names an unknown class.
    """
    nested = source / "Annotations" / "Horizontal Bounding Boxes"
    labels = nested if nested.is_dir() else source / "Annotations"
    folders = {"train": source / "JPEGImages-trainval", "val": source / "JPEGImages-test"}
    for folder in (labels, *folders.values()):
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist; give the folder of DIOR as it is published")
    splits = {
        split: [_read_voc(labels / f"{file.stem}.xml", file) for file in sorted(folder.glob("*.jpg"))]
        for split, folder in folders.items()
    }
    return splits, list(DIOR_CLASSES)


def _read_voc(path: Path, picture: Path) -> Picture:
    if not path.is_file():
        raise DataError(f"{path} does not exist; every picture of DIOR has one XML file")
    try:
        root = ET.parse(path).getroot()
        boxes = [
            Box(DIOR_CLASSES.index(_text(entry, "name")), _voc_box(entry.find("bndbox")))
            for entry in root.iter("object")
        ]
        width, height = (int(_text(root.find("size"), key)) for key in ("width", "height"))
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{path} is no annotation of DIOR: {error}") from error
    return Picture(picture, width, height, tuple(boxes))


def _voc_box(entry: ET.Element | None) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(_text(entry, key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    return x1, y1, x2, y2


def _text(entry: ET.Element | None, key: str) -> str:
    found = None if entry is None else entry.findtext(key)
    if found is None:
        raise ValueError(f"<{key}> is missing")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a COCO annotation file (.json)")
    try:
        content = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected a COCO file with images and annotations")
    return content
