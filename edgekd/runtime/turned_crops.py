"""Crops that are turned with their box, and masks on the way back; the C library does the same, bit for bit.

Every turned box has a frame: the picture turned back about the centre of the box, so that the box stands upright in it.
A crop is the window around the box in that frame, cut as `edgekd.runtime.crops` cuts an upright one; where the box is
not turned, frame and picture are the same, and so are crops and masks.

    picture = R frame + t,   R = [[cos, -sin], [sin, cos]],   t = centre - R centre

Legend: n boxes; a turn is (cos, sin, centre x, centre y), px.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.model_set import CropInput
from edgekd.runtime.crops import cut, lattice_of, region_of, resized, windows_of
from edgekd.runtime.segment import Lattice, MaskOptions, cleaned, masks_on_lattices, positive_window, taps
from edgekd.types import BoolArray, Detections, Float32Array, Int32Array, Masks, UInt8Array

Turns = NDArray[np.float64]
"""(n, 4): cosine, sine, and the centre of each box, x and y in px."""

Doubles = NDArray[np.float64]
_UNIT = 1 << 30
"""Cosines are counted in this part of 1, and positions in half of it, so that every machine samples the same pixels."""
_BLOCK_PX = 512  # side of the part of a region that is sampled at a time: OpenCV counts positions in 16 bits


def frames_of(corners: Float32Array, picture_px: tuple[int, int]) -> tuple[Doubles, Turns]:
    """Return the boxes in their frames (n, 4) left, top, right, bottom, and the turns (n, 4).

    Of a box that leaves the picture, the box in the frame is the one around the part within, as an upright box is
    clipped; a box wholly outside becomes a point.

    Args:
        corners: (n, 4, 2) in the order of `Detections.corners`.
        picture_px: (height, width).
    """
    frames = [_frame(quad, picture_px) for quad in np.asarray(corners, np.float64)]
    boxes = np.array([box for box, _ in frames], np.float64).reshape(-1, 4)
    return boxes, np.array([turn for _, turn in frames], np.float64).reshape(-1, 4)


def _frame(quad: Doubles, picture_px: tuple[int, int]) -> tuple[list[float], list[float]]:
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = quad.tolist()
    x, y = (x0 + x1 + x2 + x3) / 4, (y0 + y1 + y2 + y3) / 4
    along_x, along_y = (x1 + x2 - x0 - x3) / 2, (y1 + y2 - y0 - y3) / 2
    down_x, down_y = (x2 + x3 - x0 - x1) / 2, (y2 + y3 - y0 - y1) / 2
    width = float(np.sqrt(along_x * along_x + along_y * along_y))
    height = float(np.sqrt(down_x * down_x + down_y * down_y))
    cos, sin = 1.0, 0.0
    if width > 0:
        cos, sin = along_x / width, along_y / width
    elif height > 0:  # a box without width still has a direction: that of its height, a quarter turn back
        cos, sin = down_y / height, -down_x / height
    box, turn = [x - width / 2, y - height / 2, x + width / 2, y + height / 2], [cos, sin, x, y]
    part = _within(quad.tolist(), picture_px)
    if part != quad.tolist():
        shift_x, shift_y = _to_frame(turn)
        points = [(cos * px + sin * py + shift_x, cos * py - sin * px + shift_y) for px, py in part] or [(x, y)]
        low, high = np.min(points, 0).tolist(), np.max(points, 0).tolist()
        box = [max(box[0], low[0]), max(box[1], low[1]), min(box[2], high[0]), min(box[3], high[1])]
    return box, turn


def _within(polygon: list[list[float]], picture_px: tuple[int, int]) -> list[list[float]]:
    """The part of a convex polygon in the picture, one edge of the picture after another (Sutherland and Hodgman)."""
    height, width = picture_px
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        kept: list[list[float]] = []
        for index, point in enumerate(polygon):
            before = polygon[index - 1]
            a, b = (before[axis] - limit) * sign, (point[axis] - limit) * sign
            if (a < 0) != (b < 0):
                crossing = [limit, limit]
                crossing[1 - axis] = before[1 - axis] + (point[1 - axis] - before[1 - axis]) * (a / (a - b))
                kept.append(crossing)
            if b >= 0:
                kept.append(point)
        polygon = kept
    return polygon


def _to_frame(turn: list[float]) -> tuple[float, float]:
    """The shift of frame = R^T picture + shift."""
    cos, sin, x, y = turn
    return x - (cos * x + sin * y), y - (cos * y - sin * x)


def _to_picture(turn: list[float]) -> tuple[float, float]:
    """The shift of picture = R frame + shift."""
    cos, sin, x, y = turn
    return x - (cos * x - sin * y), y - (sin * x + cos * y)


def boxes_to_cut(found: Detections, picture_px: tuple[int, int]) -> tuple[NDArray[np.floating], Turns | None]:
    """Return the boxes (n, 4) that windows are made of, and the turns of their frames; None where boxes are upright."""
    return (found.xyxy, None) if found.corners is None else frames_of(found.corners, picture_px)


def cut_boxes(picture: UInt8Array, found: Detections, spec: CropInput) -> UInt8Array:
    """Return the crops (n, S, S, 3) uint8 RGB of boxes, turned where the boxes are."""
    boxes, turns = boxes_to_cut(found, (picture.shape[0], picture.shape[1]))
    windows = windows_of(boxes, spec.window_factor)
    return cut(picture, windows, spec) if turns is None else cut_turned(picture, windows, turns, spec)


def cut_turned(picture: UInt8Array, windows: Int32Array, turns: Turns, spec: CropInput) -> UInt8Array:
    """Cut windows of frames out of a picture; pixels, padding and resize are those of `edgekd.runtime.crops.cut`.

    Args:
        picture: (H, W, 3) uint8 BGR.
        windows: (n, 4) int32 from `windows_of`, each in the frame of its box.
        turns: (n, 4) from `frames_of`.
        spec: side and padding.

    Returns:
        (n, S, S, 3) uint8 RGB.
    """
    regions = (_turned_region(picture, window, turn, spec) for window, turn in zip(windows, turns, strict=True))
    return resized(regions, len(windows), spec.side_px)


def _turned_region(picture: UInt8Array, window: Int32Array, turn: Doubles, spec: CropInput) -> UInt8Array:
    """The pixels of a frame's window, (height, width, 3) BGR: bilinear, at positions rounded to 1/32 px."""
    left, top, right, bottom = (int(value) for value in window)
    region = np.empty((bottom - top, right - left, 3), np.uint8)
    for first_row in range(0, bottom - top, _BLOCK_PX):
        for first in range(0, right - left, _BLOCK_PX):
            part = region[first_row : first_row + _BLOCK_PX, first : first + _BLOCK_PX]
            x, y = _positions(left + first, top + first_row, part.shape, turn)
            low_x, low_y = (int(value.min()) >> 5 for value in (x, y))
            high_x, high_y = ((int(value.max()) >> 5) + 2 for value in (x, y))
            source = region_of(picture, np.array([low_x, low_y, high_x, high_y], np.int32), spec)
            whole = np.stack([(x >> 5) - low_x, (y >> 5) - low_y], 2).astype(np.int16)
            fraction = ((y & 31) * 32 + (x & 31)).astype(np.uint16)
            cv2.remap(source, whole, fraction, cv2.INTER_LINEAR, dst=part, borderMode=cv2.BORDER_REPLICATE)
    return region


def _positions(
    left: int, top: int, shape: tuple[int, ...], turn: Doubles
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the pixels of a frame's window lie in the picture, x and y in 1/32 px, pixel centres at whole numbers."""
    cos, sin = (round(float(value) * _UNIT) for value in turn[:2])
    shift_x, shift_y = (round((value - 0.5) * 2 * _UNIT) + _UNIT // 32 for value in _to_picture(turn.tolist()))
    across, down = 2 * np.arange(left, left + shape[1])[None] + 1, 2 * np.arange(top, top + shape[0])[:, None] + 1
    return (cos * across - sin * down + shift_x) >> 26, (sin * across + cos * down + shift_y) >> 26


def masks_of_boxes(
    answer: tuple[Float32Array, Float32Array],
    found: Detections,
    picture_px: tuple[int, int],
    spec: CropInput,
    options: MaskOptions,
) -> Masks:
    """Return the masks of crops from `cut_boxes`.

    Args:
        answer: logits (n, S, S) and predicted IoU (n,).
        found: the boxes of the crops.
        picture_px: (height, width).
        spec: side and window.
        options: threshold and clean-up.
    """
    boxes, turns = boxes_to_cut(found, picture_px)
    windows = windows_of(boxes, spec.window_factor)
    if turns is not None:
        return turned_masks(answer, windows, turns, picture_px, options)
    lattices = [lattice_of(window, spec.side_px, picture_px) for window in windows]
    return masks_on_lattices(answer[0], lattices, answer[1], picture_px, options)


def turned_masks(
    answer: tuple[Float32Array, Float32Array],
    windows: Int32Array,
    turns: Turns,
    picture_px: tuple[int, int],
    options: MaskOptions,
) -> Masks:
    """Bring what a crop network says of turned crops to the picture.

    Args:
        answer: logits (n, S, S) and predicted IoU (n,).
        windows: (n, 4) int32, of the crops.
        turns: (n, 4) from `frames_of`.
        picture_px: (height, width).
        options: threshold and clean-up.
    """
    parts = zip(answer[0], windows, turns, strict=True)
    masks = [turned_mask(logits, window, turn, picture_px, options) for logits, window, turn in parts]
    places = np.array([place for place, _ in masks], np.int32).reshape(-1, 4)
    return Masks(picture_px, places, [crop for _, crop in masks], answer[1])


def turned_mask(
    logits: Float32Array, window: Int32Array, turn: Doubles, picture_px: tuple[int, int], options: MaskOptions
) -> tuple[Int32Array, BoolArray]:
    """Bring the logits (S, S) of a turned crop to the picture: the window of the mask, and the mask within it.

    Args:
        logits: (S, S) float32.
        window: of the crop, in the frame of its box; the mask ends with it.
        turn: (4,) of the box.
        picture_px: (height, width).
        options: threshold and clean-up.
    """
    left, top, right, bottom = (int(value) for value in window)
    side = logits.shape[0]
    lattice = Lattice(
        (side, side),
        (-float(left * side), -float(top * side)),
        (right - left, bottom - top),
        (left, top, right, bottom),
    )
    place = _in_picture(positive_window(logits, lattice, options.threshold), turn, picture_px)
    if place[2] <= place[0] or place[3] <= place[1]:
        return np.zeros(4, np.int32), np.zeros((0, 0), np.bool_)
    cos, sin = (float(value) for value in turn[:2])
    shift_x, shift_y = _to_frame(turn.tolist())
    x, y = np.arange(place[0], place[2])[None] + 0.5, np.arange(place[1], place[3])[:, None] + 0.5
    across, down = cos * x + sin * y + shift_x, cos * y - sin * x + shift_y
    inside = (across >= left) & (across <= right) & (down >= top) & (down <= bottom)
    x0, fx = taps((across * side + lattice.offset[0]) / lattice.size[0] - 0.5, side)
    y0, fy = taps((down * side + lattice.offset[1]) / lattice.size[1] - 0.5, side)
    first = _down(logits, y0 * side + x0, fy)
    second = _down(logits, y0 * side + np.minimum(x0 + 1, side - 1), fy)
    crop = (first + fx * (second - first) > options.threshold) & inside
    return place, cleaned(crop, place, picture_px, options)


def _down(logits: Float32Array, index: NDArray[np.intp], weight: Float32Array) -> Float32Array:
    """Logits (S, S) between the cells of a flat index and those below."""
    cells, side = logits.ravel(), logits.shape[0]
    above = cells.take(index)
    return np.asarray(above + weight * (cells.take(np.minimum(index + side, cells.size - 1)) - above), np.float32)


def _in_picture(window: Int32Array, turn: Doubles, picture_px: tuple[int, int]) -> Int32Array:
    """The upright window of the picture around a window of a frame; nothing for one without a pixel."""
    left, top, right, bottom = (float(value) for value in window)
    if right <= left or bottom <= top:
        return np.zeros(4, np.int32)
    cos, sin = (float(value) for value in turn[:2])
    shift_x, shift_y = _to_picture(turn.tolist())
    x = [cos * u - sin * v + shift_x for u in (left, right) for v in (top, bottom)]
    y = [sin * u + cos * v + shift_y for u in (left, right) for v in (top, bottom)]
    height, width = picture_px
    low = max(np.floor(min(x)), 0), max(np.floor(min(y)), 0)
    high = min(np.ceil(max(x)), width), min(np.ceil(max(y)), height)
    return np.array([*low, *high]).astype(np.int32)
