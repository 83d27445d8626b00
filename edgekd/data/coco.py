"""COCO's JSON: detection and instance labels in, a `LabelledSet` out.

Class ids count the categories in the order of their ids. Boxes are kept as they are written, also where they cross the
edge; polygons and run lengths are checked against their picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.inside import TOLERANCE, checked_names, picture_inside, printable, read_json
from edgekd.data.labels import LabelledPicture, LabelledSet, Segmentation
from edgekd.data.rle import decode_rle
from edgekd.errors import DataError

KIND = "COCO labels: a JSON with images, annotations and categories"
LARGEST_SIDE_PX = 1_000_000


def read_coco(path: Path, images: Path | None = None, limit: int | None = None) -> LabelledSet:
    """Read a COCO file.

    Args:
        path: the JSON file.
        images: folder of the pictures; None looks for `images` beside the file, then beside it directly.
        limit: take only the first so many pictures.

    Raises:
        DataError: the file is missing or damaged, an entry is wrong (it is named), or a picture is missing or lies
            outside its folder.
    """
    content = read_json(path, KIND)
    beside = path.parent / "images"
    folder = images or (beside if beside.is_dir() else path.parent)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder, expected the pictures of {path}")
    class_ids, names = _categories(content, path)
    entries = _entries(content, "images", path)
    annotations: dict[Any, list[dict[str, Any]]] = {}
    for entry in entries:
        key = _get(entry, "id", f"a picture of {path}", (int, str))
        if key in annotations:
            raise DataError(f"{path} lists two pictures with the id {key}; give every picture its own")
        annotations[key] = []
    for annotation in _entries(content, "annotations", path):
        where = _where(annotation, path)
        image_id = _get(annotation, "image_id", where, (int, str))
        if image_id not in annotations:
            raise DataError(
                f"{where} names picture {printable(str(image_id))[:80]}, which the file does not list; repair the file"
            )
        annotations[image_id].append(annotation)
    pictures = tuple(
        _picture(entry, [_Object(a, class_ids, path) for a in annotations[entry["id"]]], (path, folder, names))
        for entry in entries[:limit]
    )
    return LabelledSet(path, names, pictures)


class _Object:
    """One annotation, its entries checked one by one."""

    def __init__(self, annotation: dict[str, Any], class_ids: dict[int, int], path: Path) -> None:
        self.where = _where(annotation, path)
        category = _get(annotation, "category_id", self.where, (int,))
        if category not in class_ids:
            raise DataError(f"{self.where} uses category {category}, which the file does not list; repair the file")
        self.class_id = class_ids[category]
        self.crowd = bool(annotation.get("iscrowd", 0))
        self.segmentation: Segmentation | None = annotation.get("segmentation") or None
        bbox = annotation.get("bbox")
        if bbox is None and isinstance(self.segmentation, list):
            bbox = _box_of(self.segmentation, self.where)
        self.xywh = _numbers(bbox, self.where, "bbox")
        if self.xywh.shape != (4,) or (self.xywh[2:] < 0).any():
            raise DataError(f"{self.where} has the box {bbox}, expected x, y, width and height, no negative side")
        area = _numbers(annotation.get("area", float(self.xywh[2:].prod())), self.where, "area")
        if area.shape != ():
            raise DataError(f"{self.where} has the area {annotation['area']}, expected one number; correct it")
        self.area_px = float(area)

    def check_mask(self, size_px: tuple[int, int]) -> None:
        """Check a polygon or run lengths against the picture."""
        if self.segmentation is None:
            return
        if isinstance(self.segmentation, dict):
            try:
                decode_rle(self.segmentation, size_px)
            except DataError as error:
                raise DataError(f"{self.where}: {error}") from error
            return
        if not isinstance(self.segmentation, list):
            raise DataError(f"{self.where} has a segmentation that is neither polygons nor run lengths; correct it")
        limit = np.array(size_px[::-1], np.float64)
        for ring in self.segmentation:
            points = _numbers(ring, self.where, "segmentation")
            if points.ndim != 1 or points.size < 6 or points.size % 2:
                raise DataError(f"{self.where} has a polygon of {points.size // 2} points, expected at least 3 x, y")
            fractions = points.reshape(-1, 2) / limit
            if fractions.min() < -TOLERANCE or fractions.max() > 1 + TOLERANCE:
                raise DataError(
                    f"{self.where} has a polygon reaching outside its {size_px[1]}x{size_px[0]} px picture; correct it"
                )


def _picture(entry: dict[str, Any], objects: list[_Object], of: tuple[Path, Path, tuple[str, ...]]) -> LabelledPicture:
    path, folder, names = of
    where = f"picture {entry['id']} of {path}"
    size_px = _side(entry, "height", where), _side(entry, "width", where)
    file = picture_inside(folder, _get(entry, "file_name", where, (str,)), where)
    for item in objects:
        item.check_mask(size_px)
    xywh = np.array([item.xywh for item in objects], np.float64).reshape(-1, 4)
    return LabelledPicture(
        path=file,
        size_px=size_px,
        xyxy=np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32),
        class_id=np.array([item.class_id for item in objects], np.int32),
        area_px=np.array([item.area_px for item in objects], np.float64),
        crowd=np.array([item.crowd for item in objects], np.bool_),
        segmentations=tuple(item.segmentation for item in objects),
        class_names=names,
    )


def _categories(content: dict[str, Any], path: Path) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return category id -> class id, and the names in the order of the category ids."""
    found: dict[int, str] = {}
    for entry in _entries(content, "categories", path):
        key = _get(entry, "id", f"a category of {path}", (int,))
        if key in found:
            raise DataError(f"{path} lists two categories with the id {key}; give every category its own")
        found[key] = _get(entry, "name", f"category {key} of {path}", (str, int))
    ordered = sorted(found)
    return {key: index for index, key in enumerate(ordered)}, checked_names((found[key] for key in ordered), path)


def _entries(content: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    entries = content.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        state = "has no" if key not in content else "has an unusable"
        raise DataError(f"{path} is not a COCO file: it {state} list {key!r}, expected {KIND}")
    return entries


def _get(entry: dict[str, Any], key: str, where: str, kinds: tuple[type, ...]) -> Any:
    value = entry.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        found = "nothing" if value is None else printable(str(value))[:40]
        raise DataError(f"{where} has {found} as {key!r}, expected {' or '.join(k.__name__ for k in kinds)}")
    return value


def _side(entry: dict[str, Any], key: str, where: str) -> int:
    side = int(_get(entry, key, where, (int,)))
    if not 0 < side <= LARGEST_SIDE_PX:
        raise DataError(f"{where} has {side} px as {key!r}, expected 1 to {LARGEST_SIDE_PX}")
    return side


def _where(annotation: dict[str, Any], path: Path) -> str:
    return f"{path}: annotation {printable(str(annotation.get('id')))[:20]}"


def _numbers(values: Any, where: str, key: str) -> np.ndarray:
    try:
        numbers = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError):
        numbers = np.full(1, np.nan)
    if values is None or not np.isfinite(numbers).all():
        raise DataError(f"{where} has {printable(str(values))[:60]} as {key!r}, expected finite numbers")
    return numbers


def _box_of(rings: list[list[float]], where: str) -> list[float]:
    points = np.concatenate([_numbers(ring, where, "segmentation").ravel() for ring in rings])
    if points.size % 2 or not points.size:
        raise DataError(f"{where} has a polygon of {points.size} numbers, expected x, y pairs")
    corners = points.reshape(-1, 2)
    low, high = corners.min(0), corners.max(0)
    return [*low, *(high - low)]
