"""What a chain found, to look at: drawn over the picture, or masks alone in colour.

A picture and a `ChainResult` go in; a new picture (H, W, 3) uint8 BGR comes out.
"""

from __future__ import annotations

import colorsys

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.text import shown
from edgekd.types import ChainResult, UInt8Array

_FONT = cv2.FONT_HERSHEY_SIMPLEX
Rectangle = tuple[int, int, int, int]
"""left, top, right, bottom in pixels of the picture."""


def class_colour(class_id: int) -> tuple[int, int, int]:
    """Return a BGR colour; consecutive classes are a golden ratio apart on the hue circle."""
    red, green, blue = colorsys.hsv_to_rgb((0.05 + class_id * 0.618034) % 1.0, 0.85, 1.0)
    return int(blue * 255), int(green * 255), int(red * 255)


def overlay(picture: UInt8Array, result: ChainResult) -> UInt8Array:
    """Draw masks (half transparent), their outlines, boxes and names on a copy of the picture: (H, W, 3) uint8 BGR.

    A name stands where it hides least of other objects and names; the name of an object without such a place covers
    what is largest.
    """
    canvas = picture.copy()
    line_px = max(1, round(max(picture.shape[:2]) / 600))
    # Large masks first, so that a small object on top of a large one stays visible.
    for index in np.argsort(-result.masks.areas_px(), kind="stable"):
        _draw_mask(canvas, result, int(index), line_px)
    for index in range(len(result) - 1, -1, -1):
        colour = class_colour(int(result.detections.class_id[index]))
        if result.detections.corners is not None:
            quad = result.detections.corners[index].round().astype(np.int32)
            cv2.polylines(canvas, [quad], True, colour, line_px, cv2.LINE_AA)
            continue
        left, top, right, bottom = _rounded(result, index)
        cv2.rectangle(canvas, (left, top), (right, bottom), colour, line_px, cv2.LINE_AA)
    _draw_names(canvas, result, line_px)
    return canvas


def mask_preview(result: ChainResult) -> UInt8Array:
    """Draw every mask in a colour of its own on black: (H, W, 3) uint8 BGR; the more confident object is on top."""
    canvas = np.zeros((*result.masks.size_px, 3), np.uint8)
    for index in range(len(result) - 1, -1, -1):
        left, top, right, bottom = result.masks.windows[index]
        canvas[top:bottom, left:right][result.masks.crops[index]] = class_colour(index)
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


def _draw_names(canvas: UInt8Array, result: ChainResult, line_px: int) -> None:
    """Write class and confidence of every object, the most confident first."""
    size = 0.45 * max(1.0, line_px * 0.8)
    names: list[Rectangle] = []
    for index in range(len(result)):
        class_id = int(result.detections.class_id[index])
        text = f"{shown(result.class_names[class_id])} {result.detections.confidence[index]:.2f}"
        (width, height), base = cv2.getTextSize(text, _FONT, size, line_px)
        name_px = (width, height + base + 1)
        left, top, right, bottom = place_name(name_px, _rounded(result, index), result.detections.xyxy, names, canvas)
        names.append((left, top, right, bottom))
        cv2.rectangle(canvas, (left, top), (right, bottom), class_colour(class_id), cv2.FILLED)
        cv2.putText(canvas, text, (left, bottom - base), _FONT, size, (0, 0, 0), line_px, cv2.LINE_AA)


def place_name(
    name_px: tuple[int, int],
    box: Rectangle,
    boxes: NDArray[np.float32],
    names: list[Rectangle],
    canvas: UInt8Array,
) -> Rectangle:
    """Choose where the name of an object stands: around its box or in its corner, where it hides least.

    Args:
        name_px: (width, height) of the name.
        box: of the object.
        boxes: (n, 4) of all objects; hiding a share of a small one weighs more than the same pixels of a large one.
        names: those that are placed already; hiding them weighs most.
        canvas: the picture, which the name does not leave where it fits.
    """
    width, height = name_px
    left, top, right, bottom = box
    corners = [
        (left, top - height), (left, bottom), (right - width, top - height), (right - width, bottom), (left, top),
        (right, top), (left - width, top), (right, bottom - height), (left - width, bottom - height),
    ]  # fmt: skip
    limit_x, limit_y = max(0, canvas.shape[1] - width), max(0, canvas.shape[0] - height)
    places = np.array([(min(max(x, 0), limit_x), min(max(y, 0), limit_y)) for x, y in corners], np.float64)
    candidates = np.concatenate([places, places + np.array([width, height])], 1)
    hidden = _shares(candidates, boxes.astype(np.float64)).sum(1)
    if names:
        hidden = hidden + 4 * _shares(candidates, np.array(names, np.float64)).sum(1)
    x0, y0, x1, y1 = candidates[int(hidden.argmin())].astype(int)
    return int(x0), int(y0), int(x1), int(y1)


def _shares(candidates: NDArray[np.float64], covered: NDArray[np.float64]) -> NDArray[np.float64]:
    """(k, n): the share of rectangle n that candidate k hides."""
    low = np.maximum(candidates[:, None, :2], covered[None, :, :2])
    high = np.minimum(candidates[:, None, 2:], covered[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    area = np.clip(covered[:, 2:] - covered[:, :2], 1, None).prod(-1)
    return np.asarray(overlap / area, np.float64)


def _rounded(result: ChainResult, index: int) -> Rectangle:
    left, top, right, bottom = (round(float(value)) for value in result.detections.xyxy[index])
    return left, top, right, bottom
