"""The geometry of crop networks: boxes become windows of the picture and pixels of one size, and logits go back.

The C library does the same, bit for bit. Legend: n boxes, S side of the network's input in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.model_set import CropInput
from edgekd.runtime.segment import Lattice
from edgekd.types import Int32Array, UInt8Array


def windows_of(xyxy: NDArray[np.floating], window_factor: float) -> Int32Array:
    """Scale boxes about their centres and round outwards to whole pixels, at least one.

    Args:
        xyxy: (n, 4) boxes in picture pixels.
        window_factor: side of the window over side of the box.

    Returns:
        (n, 4) int32 left, top, right, bottom; a window may leave the picture.
    """
    box = xyxy.astype(np.float64)
    centre = (box[:, :2] + box[:, 2:]) / 2
    half = (box[:, 2:] - box[:, :2]) * (window_factor / 2)
    low = np.floor(centre - half).astype(np.int32)
    high = np.ceil(centre + half).astype(np.int32)
    return np.concatenate([low, np.maximum(high, low + 1)], 1)


def cut(picture: UInt8Array, windows: Int32Array, spec: CropInput) -> UInt8Array:
    """Cut windows out of a picture and resize them: averaging areas where both sides shrink, otherwise linear.

    Args:
        picture: (H, W, 3) uint8 BGR.
        windows: (n, 4) int32 from `windows_of`.
        spec: side and padding.

    Returns:
        (n, S, S, 3) uint8 RGB.
    """
    regions = (region_of(picture, window, spec) for window in windows)
    return resized(regions, len(windows), spec.side_px)


def resized(regions: Iterable[UInt8Array], n: int, side_px: int) -> UInt8Array:
    """Resize n regions (height, width, 3) BGR to (n, S, S, 3) uint8 RGB."""
    crops = np.empty((n, side_px, side_px, 3), np.uint8)
    for crop, region in zip(crops, regions, strict=True):
        height, width = region.shape[:2]
        shrinks = side_px < width and side_px < height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cv2.resize(region, (side_px, side_px), dst=crop, interpolation=how)
    column = crops.reshape(-1, side_px, 3)  # all crops as one picture: one call turns BGR into RGB
    return np.asarray(cv2.cvtColor(column, cv2.COLOR_BGR2RGB), np.uint8).reshape(crops.shape)


def region_of(picture: UInt8Array, window: Int32Array, spec: CropInput) -> UInt8Array:
    """Return the pixels of a window, (height, width, 3) BGR, padded where it leaves the picture."""
    height, width = picture.shape[:2]
    left, top, right, bottom = (int(value) for value in window)
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    if (x0, y0, x1, y1) == (left, top, right, bottom):
        return picture[top:bottom, left:right]
    region = np.empty((bottom - top, right - left, 3), np.uint8)
    region[:] = np.array(spec.pad[::-1]).round().astype(np.uint8)
    if x0 < x1 and y0 < y1:
        region[y0 - top : y1 - top, x0 - left : x1 - left] = picture[y0:y1, x0:x1]
    return region


def lattice_of(window: Int32Array, side_px: int, picture_px: tuple[int, int]) -> Lattice:
    """Say where the S x S logits of a window lie in a picture of (height, width); masks end with the window."""
    left, top, right, bottom = (int(value) for value in window)
    height, width = picture_px
    limits = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
    offset = -float(left * side_px), -float(top * side_px)
    return Lattice((side_px, side_px), offset, (right - left, bottom - top), limits)
