"""The content of result files: our own JSON, COCO, CSV, YOLO-seg, GeoJSON, label maps.

A `ChainResult`, or the JSON-ready entries made of it, goes in; arrays, text and plain values come out.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.runtime.results.regions import Json, Ring, mask_rle, one_ring, polygons
from edgekd.types import ChainResult

CSV_COLUMNS = (
    "name", "source", "frame", "class_name", "class_id", "confidence", "left_px", "top_px", "right_px", "bottom_px",
    "area_px", "predicted_iou",
)  # fmt: skip
CORNER_COLUMNS = tuple(f"corner{number}_{axis}_px" for number in range(1, 5) for axis in "xy")
"""Behind the others where boxes are turned."""


@dataclass(frozen=True)
class CocoIds:
    """The numbers that a COCO file gives: by file name for pictures, by name for classes.

    Without them pictures are numbered from 1 in the order in which they came, and classes are class_id + 1.
    """

    images: Mapping[str, int] = field(default_factory=dict)
    categories: Mapping[str, int] = field(default_factory=dict)


def label_map(result: ChainResult) -> NDArray[np.uint16]:
    """Return (H, W) uint16: 0 for background, 1 + index of the object elsewhere; the more confident object wins."""
    labels = np.zeros(result.masks.size_px, np.uint16)
    for index in range(len(result) - 1, -1, -1):
        left, top, right, bottom = result.masks.windows[index]
        labels[top:bottom, left:right][result.masks.crops[index]] = index + 1
    return labels


def objects_json(result: ChainResult, masks: bool = True) -> list[Json]:
    """Return one JSON-ready entry per object.

    Its keys are class_name, class_id, confidence, xyxy, corners where boxes are turned and, with `masks`, area_px,
    predicted_iou, mask (COCO RLE).
    """
    objects: list[Json] = [
        {
            "class_name": result.class_names[int(result.detections.class_id[index])],
            "class_id": int(result.detections.class_id[index]),
            "confidence": round(float(result.detections.confidence[index]), 5),
            "xyxy": [round(float(value), 2) for value in result.detections.xyxy[index]],
        }
        for index in range(len(result))
    ]
    corners = result.detections.corners
    if corners is not None:
        for found, quad in zip(objects, corners, strict=True):
            found["corners"] = [[round(float(x), 2), round(float(y), 2)] for x, y in quad]
    if masks:
        for index, (found, area) in enumerate(zip(objects, result.masks.areas_px().tolist(), strict=True)):
            found["area_px"] = area
            found["predicted_iou"] = round(float(result.masks.predicted_iou[index]), 5)
            found["mask"] = mask_rle(result.masks, index)
    return objects


def csv_text(pictures: Iterable[Mapping[str, Any]], header: bool = True, oriented: bool = False) -> str:
    """Return the objects of picture entries as lines of `CSV_COLUMNS`, with `oriented` also of `CORNER_COLUMNS`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow((*CSV_COLUMNS, *(CORNER_COLUMNS if oriented else ())))
    for picture in pictures:
        frame = "" if picture.get("frame") is None else picture["frame"]
        for found in picture["objects"]:
            values = (found["class_name"], found["class_id"], found["confidence"], *found["xyxy"])
            masks = found.get("area_px"), found.get("predicted_iou")
            corners = (value for corner in found["corners"] for value in corner) if oriented else ()
            writer.writerow((picture["name"], picture["source"], frame, *values, *masks, *corners))
    return text.getvalue()


def coco_image(picture: Mapping[str, Any], file_name: str, image_id: int) -> Json:
    """Return the entry of a COCO data set for a picture entry."""
    return {"id": image_id, "file_name": file_name, "width": picture["width_px"], "height": picture["height_px"]}


def coco_objects(picture: Mapping[str, Any], image_id: int, ids: CocoIds) -> list[Json]:
    """Return COCO results (image_id, category_id, bbox, score, segmentation) of a picture entry.

    A turned box without a mask is a polygon of its corners.
    """
    results = []
    for found in picture["objects"]:
        left, top, right, bottom = found["xyxy"]
        result = {
            "image_id": image_id,
            "category_id": ids.categories.get(found["class_name"], found["class_id"] + 1),
            "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
            "score": found["confidence"],
        }
        if found.get("area_px"):
            result["segmentation"] = found["mask"]
        elif "corners" in found and "mask" not in found:
            result["segmentation"] = [[value for corner in found["corners"] for value in corner]]
        results.append(result)
    return results


def coco_annotation(result: Mapping[str, Any], annotation_id: int) -> Json:
    """Return a COCO result as an annotation of a data set, its score kept."""
    width, height = result["bbox"][2:]
    return {**result, "id": annotation_id, "iscrowd": 0, "area": round(width * height, 2)}


def yolo_lines(result: ChainResult, masks: bool = True) -> str:
    """Return the labels of one picture as Ultralytics reads them: `class x y x y ...`, from 0 to 1, one per line.

    Parts and holes of a mask are joined by bridges without width. Without masks a line is `class x y width height`.
    An object whose mask is empty has no outline and is left out.
    """
    height, width = result.masks.size_px
    lines = []
    for index in range(len(result)):
        class_id = int(result.detections.class_id[index])
        if masks:
            parts = mask_polygons(result, index)
            numbers = np.array(one_ring(parts)[:-1]) / (width, height) if parts else np.zeros(0)
        else:
            corners = result.detections.xyxy[index].astype(np.float64) / (width, height, width, height)
            numbers = np.concatenate([(corners[:2] + corners[2:]) / 2, corners[2:] - corners[:2]])
        if numbers.size:
            lines.append(" ".join([str(class_id), *(f"{value:.6g}" for value in numbers.ravel())]) + "\n")
    return "".join(lines)


def mask_polygons(result: ChainResult, index: int) -> list[list[Ring]]:
    """Return the parts of an object's mask as rings in pixels of the picture; see `polygons`."""
    left, top = (int(value) for value in result.masks.windows[index][:2])
    return polygons(result.masks.crops[index], (left, top))


def geojson(result: ChainResult, transform: Sequence[float], crs: str | None) -> Json:
    """Return a GeoJSON FeatureCollection of the masks, along pixel edges, with their holes.

    The turned box of an object is its property `corners`; without masks it is the geometry.

    Args:
        result: of one picture.
        transform: affine (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f.
        crs: name of the coordinate system, such as "EPSG:32633"; None when the file does not say.
    """
    features = []
    for index in range(len(result)):
        parts = [[_on_map(ring, transform) for ring in part] for part in mask_polygons(result, index)]
        properties: Json = {
            "class_name": result.class_names[int(result.detections.class_id[index])],
            "confidence": round(float(result.detections.confidence[index]), 5),
        }
        if result.detections.corners is not None:
            quad = result.detections.corners[index].astype(np.float64).round(2).tolist()
            ring = _on_map([*quad, quad[0]], transform)
            properties["corners"] = ring[:4]
            if not result.masks.crops[index].size:
                parts = [[ring]]
        geometry = {"type": "MultiPolygon", "coordinates": parts}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    collection: Json = {"type": "FeatureCollection", "features": features}
    if crs:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    return collection


def _on_map(ring: Ring, transform: Sequence[float]) -> Ring:
    """Map coordinates of a ring, anticlockwise for an outer one where the map's north is up, as GeoJSON wants it."""
    a, b, c, d, e, f = transform
    placed = [[a * x + b * y + c, d * x + e * y + f] for x, y in ring]
    mirrored = a * e - b * d < 0
    return placed[::-1] if mirrored else placed
