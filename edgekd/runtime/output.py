"""Results go out: overlay picture, label map, COCO run-length JSON, GeoJSON.

A `ChainResult` and its picture go in; arrays and plain JSON-ready values come out. Writing files is the caller's.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from edgekd.types import BoolArray, ChainResult, Masks, UInt8Array

Json = dict[str, Any]


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return a BGR colour; consecutive classes are a golden ratio apart on the hue circle."""
    red, green, blue = colorsys.hsv_to_rgb((0.05 + class_id * 0.618034) % 1.0, 0.85, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def overlay(picture: UInt8Array, result: ChainResult) -> UInt8Array:
    """Draw masks (half transparent), their outlines, boxes and names on a copy of the picture: (H, W, 3) uint8 BGR."""
    canvas = picture.copy()
    line_px = max(1, round(max(picture.shape[:2]) / 600))
    # Large masks first, so that a small object on top of a large one stays visible.
    for index in np.argsort(-result.masks.areas_px(), kind="stable"):
        _draw_mask(canvas, result, int(index), line_px)
    for index in range(len(result) - 1, -1, -1):
        _draw_box(canvas, result, index, line_px)
    return canvas


def _draw_mask(canvas: UInt8Array, result: ChainResult, index: int, line_px: int) -> None:
    left, top, right, bottom = result.masks.windows[index]
    crop = result.masks.crops[index]
    if not crop.size:
        return
    colour = class_colour(int(result.detections.class_id[index]))
    region = canvas[top:bottom, left:right]
    region[crop] = (0.55 * region[crop] + 0.45 * np.array(colour)).astype(np.uint8)
    contours, _ = cv2.findContours(crop.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, colour, line_px, cv2.LINE_AA, offset=(int(left), int(top)))


def _draw_box(canvas: UInt8Array, result: ChainResult, index: int, line_px: int) -> None:
    class_id = int(result.detections.class_id[index])
    colour = class_colour(class_id)
    left, top, right, bottom = (round(float(value)) for value in result.detections.xyxy[index])
    cv2.rectangle(canvas, (left, top), (right, bottom), colour, line_px, cv2.LINE_AA)
    text = f"{result.class_names[class_id]} {result.detections.confidence[index]:.2f}"
    size = 0.45 * max(1.0, line_px * 0.8)
    (width, height), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, line_px)
    x = max(0, min(left, canvas.shape[1] - width))
    y = top - base if top - height - base >= 0 else min(bottom + height + base, canvas.shape[0] - 1)
    cv2.rectangle(canvas, (x, y - height - 1), (x + width, y + base), colour, cv2.FILLED)
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, (0, 0, 0), line_px, cv2.LINE_AA)


def label_map(result: ChainResult) -> np.ndarray:
    """Return (H, W) uint16: 0 for background, 1 + index of the object elsewhere; the more confident object wins."""
    labels = np.zeros(result.masks.size_px, np.uint16)
    for index in range(len(result) - 1, -1, -1):
        left, top, right, bottom = result.masks.windows[index]
        labels[top:bottom, left:right][result.masks.crops[index]] = index + 1
    return labels


def objects_json(result: ChainResult) -> list[Json]:
    """Return one JSON-ready entry an object: class_name, class_id, confidence, xyxy, iou and mask (COCO RLE)."""
    return [
        {
            "class_name": result.class_names[int(result.detections.class_id[index])],
            "class_id": int(result.detections.class_id[index]),
            "confidence": round(float(result.detections.confidence[index]), 5),
            "xyxy": [round(float(value), 2) for value in result.detections.xyxy[index]],
            "iou": round(float(result.masks.predicted_iou[index]), 5),
            "mask": mask_rle(result.masks, index),
        }
        for index in range(len(result))
    ]


def coco_rle(mask: BoolArray) -> Json:
    """Encode a (H, W) mask as COCO does: column-major run lengths in its 6-bit text form."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": _rle_text(runs)}


def mask_rle(masks: Masks, index: int) -> Json:
    """Encode one mask as `coco_rle(masks.full(index))` does, from its crop alone: the cost follows the object."""
    height, width = masks.size_px
    left, top = (int(value) for value in masks.windows[index][:2])
    # Changes along the columns of the crop, a background pixel above and below each; transposed to column-major order.
    edges = np.diff(np.pad(masks.crops[index], ((1, 1), (0, 0))).astype(np.int8), axis=0).T
    columns, rows = np.nonzero(edges)
    positions = (left + columns) * height + top + rows
    # A run that ends at the foot of a column and goes on at the head of the next is one.
    joined = np.flatnonzero(positions[1:-1:2] == positions[2::2]) * 2 + 1
    positions = np.delete(positions, np.concatenate([joined, joined + 1]))
    runs = np.diff(np.concatenate([[0], positions, [height * width]])).tolist()
    if len(positions) and runs[-1] == 0:
        runs.pop()
    return {"size": [height, width], "counts": _rle_text(runs)}


def _rle_text(runs: Sequence[int]) -> str:
    """COCO's text form: each run as the difference to the run two before, in groups of 5 bits plus a continue bit."""
    text = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
            if not more:
                break
    return "".join(text)


def polygons(mask: BoolArray, offset: tuple[int, int] = (0, 0)) -> list[list[list[float]]]:
    """Return the outer rings of a mask as closed lists of [x, y] pixel corners."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    for contour in contours:
        points = contour[:, 0, :].astype(float) + np.array(offset) + 0.5
        if len(points) >= 3:
            rings.append([*points.tolist(), points[0].tolist()])
    return rings


def geojson(result: ChainResult, transform: Sequence[float], crs: str | None) -> Json:
    """Return a GeoJSON FeatureCollection of the masks.

    Args:
        result: of one picture.
        transform: affine (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f.
        crs: name of the coordinate system, such as "EPSG:32633"; None when the file does not say.
    """
    a, b, c, d, e, f = transform
    features = []
    for index in range(len(result)):
        left, top = (int(value) for value in result.masks.windows[index][:2])
        rings = [
            [[a * x + b * y + c, d * x + e * y + f] for x, y in ring]
            for ring in polygons(result.masks.crops[index], (left, top))
        ]
        properties = {
            "class_name": result.class_names[int(result.detections.class_id[index])],
            "confidence": round(float(result.detections.confidence[index]), 5),
        }
        geometry = {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
        features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    collection: Json = {"type": "FeatureCollection", "features": features}
    if crs:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    return collection
