"""Labelled pictures on disk: COCO JSON or an Ultralytics data YAML in, one `LabelledSet` out.

Nothing is decoded here but what the format leaves out (the picture sizes of YOLO labels). Boxes are xyxy in picture
pixels; masks stay in COCO's own form (polygons or run lengths).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError
from edgekd.runtime.sources import pictures_in, read_picture
from edgekd.types import BoolArray, Float32Array, Int32Array

Segmentation = list[list[float]] | dict[str, Any]


@dataclass(frozen=True)
class LabelledPicture:
    """One picture and its n objects.

    Attributes:
        path: the file.
        size_px: (height, width).
        xyxy: (n, 4) float32.
        class_id: (n,) int32, index into the set's class names.
        area_px: (n,) float64, area of the object (of its box where it has no mask); it decides small, medium or large.
        crowd: (n,) bool, regions of many objects that AP ignores.
        segmentations: n masks as COCO writes them, None where an object has a box only.
    """

    path: Path
    size_px: tuple[int, int]
    xyxy: Float32Array
    class_id: Int32Array
    area_px: NDArray[np.float64]
    crowd: BoolArray
    segmentations: tuple[Segmentation | None, ...]

    def __len__(self) -> int:
        return len(self.xyxy)


@dataclass(frozen=True)
class LabelledSet:
    """Pictures with labels; `source` is the file that described them."""

    source: Path
    class_names: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]

    @property
    def has_masks(self) -> bool:
        """Whether every object that is no crowd has a mask."""
        return all(
            mask is not None
            for picture in self.pictures
            for mask, crowd in zip(picture.segmentations, picture.crowd, strict=True)
            if not crowd
        )

    def only(self, names: Iterable[str]) -> LabelledSet:
        """Keep the pictures with these file names.

        Raises:
            DataError: a name is not in the set.
        """
        wanted = set(names)
        missing = sorted(wanted - {picture.path.name for picture in self.pictures})
        if missing:
            raise DataError(f"{self.source} has no picture {missing[0]}; name pictures that it lists")
        return replace(self, pictures=tuple(p for p in self.pictures if p.path.name in wanted))


def read_labelled_set(
    path: Path, images: Path | None = None, split: str = "val", limit: int | None = None
) -> LabelledSet:
    """Read labels, by the suffix of `path`.

    Args:
        path: COCO instance JSON (`.json`) or Ultralytics data file (`.yaml`, `.yml`).
        images: folder of the pictures of a COCO JSON; None looks for `images` beside it, then beside it directly.
        split: which part of a data YAML.
        limit: take only the first so many pictures.

    Raises:
        DataError: the file or a picture is missing, damaged, of another format, or there is no labelled object.
    """
    if path.suffix.lower() not in (".json", ".yaml", ".yml"):
        raise DataError(f"{path} is neither .json nor .yaml, expected COCO labels or an Ultralytics data file")
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected COCO labels (.json) or an Ultralytics data file (.yaml)")
    is_coco = path.suffix.lower() == ".json"
    found = _read_coco(path, images, limit) if is_coco else _read_yolo(path, split, limit)
    if not any(len(picture) for picture in found.pictures):
        raise DataError(f"{path} labels no object in {len(found.pictures)} pictures; give pictures with objects")
    return found


def _read_coco(path: Path, images: Path | None, limit: int | None) -> LabelledSet:
    folder = images or (path.parent / "images" if (path.parent / "images").is_dir() else path.parent)
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        categories = {int(c["id"]): str(c["name"]) for c in raw["categories"]}
        order = {category: index for index, category in enumerate(categories)}
        entries = raw["images"][:limit]
        by_image: dict[Any, list[dict[str, Any]]] = {entry["id"]: [] for entry in raw["images"]}
        for annotation in raw["annotations"]:
            if annotation["category_id"] not in order:
                raise DataError(f"{path} uses category {annotation['category_id']}, which it does not list; repair it")
            by_image[annotation["image_id"]].append(annotation)
        pictures = tuple(_coco_picture(entry, by_image[entry["id"]], order, folder) for entry in entries)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__} {error}"[:120]
        raise DataError(
            f"{path} is no COCO instance file ({reason}); expected a JSON with images, annotations and categories"
        ) from error
    missing = [picture.path for picture in pictures if not picture.path.is_file()]
    if missing:
        raise DataError(f"{path} names {len(missing)} pictures that do not exist, such as {missing[0]}; give --images")
    return LabelledSet(path, tuple(categories.values()), pictures)


def _coco_picture(
    entry: dict[str, Any], annotations: Sequence[dict[str, Any]], order: dict[int, int], folder: Path
) -> LabelledPicture:
    name = str(entry["file_name"])
    if os.path.isabs(name) or os.path.normpath(name).startswith(".."):
        raise DataError(f"the labels name the picture {name!r}, expected a path below {folder}; correct the labels")
    xywh = np.array([a["bbox"] for a in annotations], np.float32).reshape(-1, 4)
    if not np.isfinite(xywh).all() or (xywh[:, 2:] < 0).any():
        raise DataError(f"the labels of {name} hold a box with a negative or infinite side; correct the labels")
    return LabelledPicture(
        path=folder / name,
        size_px=(int(entry["height"]), int(entry["width"])),
        xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1),
        class_id=np.array([order[a["category_id"]] for a in annotations], np.int32),
        area_px=np.array([a.get("area", a["bbox"][2] * a["bbox"][3]) for a in annotations], np.float64),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], np.bool_),
        segmentations=tuple(a.get("segmentation") or None for a in annotations),
    )


def _read_yolo(path: Path, split: str, limit: int | None) -> LabelledSet:
    try:
        import yaml
    except ImportError as error:
        raise DataError(f"{path} needs PyYAML; install it with: pip install pyyaml, or give COCO labels") from error
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = raw["names"]
        ordered = tuple(str(names[i]) for i in range(len(names)))
        root = Path(raw.get("path") or ".")
        parts = raw[split] if isinstance(raw[split], list) else [raw[split]]
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        reason = f"{type(error).__name__} {error}".replace("\n", " ")[:120]
        raise DataError(
            f"{path} is no Ultralytics data file with the part {split} ({reason}); expected path, {split} and names"
        ) from error
    root = root if root.is_absolute() else path.parent / root
    files = [file for part in parts for file in _split_files(root, str(part))]
    pictures = tuple(_yolo_picture(file, len(ordered)) for file in files[:limit])
    return LabelledSet(path, ordered, pictures)


def _split_files(root: Path, part: str) -> list[Path]:
    """A part is a folder of pictures, or a text file with one picture a line."""
    where = root / part
    if where.is_dir():
        return pictures_in(where)
    if not where.is_file():
        raise DataError(f"{where} does not exist, expected a folder or a list of pictures; correct the data file")
    lines = [line.strip() for line in where.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Path(line) if Path(line).is_absolute() else where.parent / line for line in lines]


def _yolo_picture(path: Path, n_classes: int) -> LabelledPicture:
    """Read `labels/.../name.txt` of `images/.../name.jpg`: `class x y w h` or `class x y x y x y ...`, all in 0..1."""
    height, width = read_picture(path).shape[:2]
    scale = np.array([width, height], np.float64)
    boxes, classes, areas, masks = [], [], [], []
    for values in _label_lines(_label_path(path), n_classes):
        if len(values) == 5:
            centre, size = values[1:3] * scale, values[3:5] * scale
            corners, area, mask = np.stack([centre - size / 2, centre + size / 2]), float(size.prod()), None
        else:
            ring = values[1:].reshape(-1, 2) * scale
            corners = np.stack([ring.min(0), ring.max(0)])
            area, mask = float(cv2.contourArea(ring.astype(np.float32))), [ring.ravel().tolist()]
        boxes.append(corners.ravel())
        classes.append(int(values[0]))
        areas.append(area)
        masks.append(mask)
    n = len(boxes)
    return LabelledPicture(
        path=path,
        size_px=(height, width),
        xyxy=np.array(boxes, np.float32).reshape(n, 4),
        class_id=np.array(classes, np.int32),
        area_px=np.array(areas, np.float64),
        crowd=np.zeros(n, np.bool_),
        segmentations=tuple(masks),
    )


def _label_path(path: Path) -> Path:
    """Ultralytics' rule: the last folder called `images` becomes `labels`, the suffix `.txt`."""
    parts = list(path.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _label_lines(path: Path, n_classes: int) -> list[NDArray[np.float64]]:
    if not path.is_file():
        return []  # a picture without a label file has no objects: Ultralytics' convention
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = np.array(line.split(), np.float64)
        except ValueError:
            values = np.zeros(0)
        whole = len(values) == 5 or (len(values) >= 7 and len(values) % 2 == 1)
        if not whole or not np.isfinite(values).all() or values[1:].min() < -0.01 or values[1:].max() > 1.01:
            raise DataError(f"{path} line {number} is no YOLO label, expected: class x y w h in 0..1; correct it")
        if not 0 <= values[0] < n_classes:
            raise DataError(f"{path} line {number} has class {values[0]:g}, expected 0 to {n_classes - 1}; correct it")
        lines.append(values)
    return lines
