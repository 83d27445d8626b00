"""Turned boxes: their corners, how alike two of them are, and which of them say the same of one object.

A turned box is (centre x, centre y, width, height, radians) in px. The angle turns the x axis, along which the width
lies, towards the y axis, which points down: clockwise as a picture shows it. Its corners are left top, right top, right
bottom and left bottom of the box before it is turned about its centre. The C library computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edgekd.runtime.preprocess import Placement
from edgekd.types import Float32Array, Int32Array

Doubles = NDArray[np.float64]
EPSILON = 1e-7
"""Keeps the quotients and logarithms of ProbIoU finite for boxes without area."""

_SIGNS = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
_PARALLEL = 1e-9
"""Sine below which sides have one direction, and share of a squared side within which a point lies on a line; a turn of
a corner in double precision is known to about 1e-15 of these."""
_BLOCK = 256  # boxes that are compared with all better ones at a time: bounds memory


def corners_of(boxes: NDArray[np.floating]) -> Doubles:
    """Return the corners of (n, 5) turned boxes: (n, 4, 2), x and y."""
    box = np.asarray(boxes, np.float64).reshape(-1, 5)
    cos, sin = np.cos(box[:, 4]), np.sin(box[:, 4])
    along = _SIGNS[None, :, 0] * box[:, None, 2]
    across = _SIGNS[None, :, 1] * box[:, None, 3]
    x = box[:, None, 0] + along * cos[:, None] - across * sin[:, None]
    y = box[:, None, 1] + along * sin[:, None] + across * cos[:, None]
    return np.stack([x, y], 2)


def boxes_of(corners: NDArray[np.floating]) -> Doubles:
    """Return the turned boxes (n, 5) of corners (n, 4, 2) in the order of `corners_of`."""
    quad = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    centre = quad.mean(1)
    along = (quad[:, 1] + quad[:, 2] - quad[:, 0] - quad[:, 3]) / 2
    across = (quad[:, 2] + quad[:, 3] - quad[:, 0] - quad[:, 1]) / 2
    # A box without width still has a direction: that of its height, a quarter turn back.
    angle = np.where(
        np.hypot(along[:, 0], along[:, 1]) > 0,
        np.arctan2(along[:, 1], along[:, 0]),
        np.arctan2(-across[:, 0], across[:, 1]),
    )
    sides = np.hypot(along[:, 0], along[:, 1]), np.hypot(across[:, 0], across[:, 1])
    return np.stack([centre[:, 0], centre[:, 1], *sides, angle], 1)


def enclosing(corners: NDArray[np.floating]) -> Float32Array:
    """Return the upright boxes around corners (n, 4, 2): (n, 4) float32 left, top, right, bottom."""
    quad = np.asarray(corners).reshape(-1, 4, 2)
    return np.concatenate([quad.min(1), quad.max(1)], 1).astype(np.float32)


def to_picture(corners: NDArray[np.floating], placement: Placement) -> Float32Array:
    """Map corners (n, 4, 2) from input to picture pixels, unclipped: (n, 4, 2) float32.

    The two scales of a placement differ by a rounding, so that a turned box would become a parallelogram: every side
    takes the scale of its own direction, and the width keeps its direction.
    """
    box, scale = boxes_of(corners), np.array([placement.scale_x, placement.scale_y])
    centre = (box[:, :2] - np.array([placement.left_px, placement.top_px])) / scale
    cos, sin = np.cos(box[:, 4]), np.sin(box[:, 4])
    along, across = np.stack([cos, sin], 1) / scale, np.stack([-sin, cos], 1) / scale
    sides = box[:, 2] * np.hypot(along[:, 0], along[:, 1]), box[:, 3] * np.hypot(across[:, 0], across[:, 1])
    angle = np.arctan2(along[:, 1], along[:, 0])
    return corners_of(np.stack([centre[:, 0], centre[:, 1], *sides, angle], 1)).astype(np.float32)


def probiou(first: NDArray[np.floating], second: NDArray[np.floating]) -> Doubles:
    """Return how alike turned boxes are, 0 to 1: each of the (n, 5) with each of the (m, 5), (n, m).

    Every box becomes a Gaussian of its centre and of the covariance R diag(w^2 / 12, h^2 / 12) R^T, the one of a
    uniform rectangle. ProbIoU = 1 - H_D, with the Hellinger distance H_D = sqrt(1 - exp(-B_D)) and the Bhattacharyya
    distance B_D = d^T S^-1 d / 8 + ln(det S / sqrt(det S_1 det S_2)) / 2, S = (S_1 + S_2) / 2 (Llerena et al. 2021,
    Gaussian Bounding Boxes and Probabilistic Intersection-over-Union, arXiv:2106.06072, section 3). The small constants
    are those of Ultralytics, whose suppression is the reference. Two boxes without area count as one.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    (a1, b1, c1), (a2, b2, c2) = (tuple(part[:, None] for part in _covariance(a)), _covariance(b))
    dx, dy = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    va, vb, vc = a1 + a2, b1 + b2, c1 + c2
    determinant = va * vb - vc * vc
    shift = (va * dy * dy + vb * dx * dx) / (determinant + EPSILON) / 4
    shift -= vc * dx * dy / (determinant + EPSILON) / 2
    product = np.maximum(a1 * b1 - c1 * c1, 0) * np.maximum(a2 * b2 - c2 * c2, 0)
    form = np.log(np.maximum(determinant, 0) / (4 * np.sqrt(product) + EPSILON) + EPSILON) / 2
    distance = np.clip(shift + form, EPSILON, 100)
    return np.asarray(1 - np.sqrt(1 - np.exp(-distance) + EPSILON), np.float64)


def _covariance(boxes: Doubles) -> tuple[Doubles, Doubles, Doubles]:
    """The covariances [[a, c], [c, b]] of (n, 5) boxes as a, b and c, (n,) each."""
    width, height = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    a, b = width * cos * cos + height * sin * sin, width * sin * sin + height * cos * cos
    return a, b, (width - height) * cos * sin


def suppress_turned(boxes: NDArray[np.floating], class_id: Int32Array, iou: float) -> NDArray[np.intp]:
    """Return the rows of the boxes that no better box of their class resembles by more than `iou`, in order.

    This is Fast NMS (Bolya et al. 2019, YOLACT, section 5) on ProbIoU, as Ultralytics runs it: a box falls to any
    better one, also to one that falls itself.

    Args:
        boxes: (n, 5) turned boxes, the most confident first.
        class_id: (n,).
        iou: 0..1.
    """
    kept = np.ones(len(boxes), np.bool_)
    for number in np.unique(class_id):
        rows = np.flatnonzero(class_id == number)
        for start in range(1, len(rows), _BLOCK):
            block = rows[start : start + _BLOCK]
            alike = probiou(boxes[rows[: start + len(block)]], boxes[block]) > iou
            better = np.arange(alike.shape[0])[:, None] < start + np.arange(len(block))[None]
            kept[block] = ~(alike & better).any(0)
    return np.flatnonzero(kept)


def turned_ious(first: NDArray[np.floating], second: NDArray[np.floating]) -> Doubles:
    """Return the exact IoU of turned boxes: corners (n, 4, 2) with corners (m, 4, 2), (n, m).

    The corners of the common polygon are the corners of one box within the other and the crossings of their sides;
    ordered by direction around their mean they give its area by the shoelace formula.
    """
    a, b = (np.asarray(side, np.float64).reshape(-1, 4, 2) for side in (first, second))
    low_a, high_a, low_b, high_b = a.min(1), a.max(1), b.min(1), b.max(1)
    near = ((low_a[:, None] < high_b[None]) & (low_b[None] < high_a[:, None])).all(2)
    i, j = np.nonzero(near)
    ious = np.zeros((len(a), len(b)))
    if not len(i):
        return ious
    origin = a.mean(1, keepdims=True)[i]
    common = _common_areas(a[i] - origin, b[j] - origin)
    areas = _areas(a)[i] + _areas(b)[j] - common
    ious[i, j] = common / np.maximum(areas, 1e-12)
    return ious


def _areas(quads: Doubles) -> Doubles:
    following = np.roll(quads, -1, 1)
    doubled = (quads[..., 0] * following[..., 1] - following[..., 0] * quads[..., 1]).sum(1)
    return np.asarray(np.abs(doubled) / 2, np.float64)


def _common_areas(a: Doubles, b: Doubles) -> Doubles:
    """Areas that quads a and b (n, 4, 2) share, (n,)."""
    ring, n = _common_rings(a, b)
    return np.asarray(np.where(n >= 3, _areas(ring), 0.0), np.float64)


def _common_rings(a: Doubles, b: Doubles) -> tuple[Doubles, NDArray[np.intp]]:
    """Corners of what convex polygons a (n, k, 2) and b (n, m, 2) share, in order around their mean.

    How many of each ring are corners is returned as well; the rest repeats the first one.
    """
    crossings, crosses = _crossings(a, b)
    points = np.concatenate([a, b, crossings], 1)
    valid = np.concatenate([_inside(a, b), _inside(b, a), crosses], 1)
    n = valid.sum(1)
    mean = (points * valid[..., None]).sum(1) / np.maximum(n, 1)[:, None]
    around = points - mean[:, None]
    angle = np.where(valid, np.arctan2(around[..., 1], around[..., 0]), np.inf)
    order = np.argsort(angle, 1)
    ring = np.take_along_axis(around, order[..., None], 1)
    ring = np.where(np.take_along_axis(valid, order, 1)[..., None], ring, ring[:, :1])
    return np.asarray(ring + mean[:, None], np.float64), n


def _inside(points: Doubles, polygons: Doubles) -> NDArray[np.bool_]:
    """Which of the points (n, k, 2) lie in their polygon (n, m, 2), the rim included: (n, k)."""
    sides = np.roll(polygons, -1, 1) - polygons
    away = points[:, :, None] - polygons[:, None]
    turn = sides[:, None, :, 0] * away[..., 1] - sides[:, None, :, 1] * away[..., 0]
    slack = _PARALLEL * np.abs(sides).max((1, 2))[:, None, None] ** 2
    return np.asarray((turn >= -slack).all(2) | (turn <= slack).all(2), np.bool_)


def _crossings(a: Doubles, b: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
    """Where sides of polygons with k and m corners cross: points (n, k * m, 2), and which of them exist (n, k * m).

    Sides of one direction do not cross: where they lie on one line, what they share ends at corners on a rim.
    """
    side_a, side_b = np.roll(a, -1, 1) - a, np.roll(b, -1, 1) - b
    between = b[:, None] - a[:, :, None]
    turn = side_a[:, :, None, 0] * side_b[:, None, :, 1] - side_a[:, :, None, 1] * side_b[:, None, :, 0]
    lengths_a, lengths_b = np.linalg.norm(side_a, axis=2), np.linalg.norm(side_b, axis=2)
    is_across = np.abs(turn) > _PARALLEL * lengths_a[:, :, None] * lengths_b[:, None]
    safe = np.where(is_across, turn, 1.0)
    along_a = (between[..., 0] * side_b[:, None, :, 1] - between[..., 1] * side_b[:, None, :, 0]) / safe
    along_b = (between[..., 0] * side_a[:, :, None, 1] - between[..., 1] * side_a[:, :, None, 0]) / safe
    exists = is_across & (along_a >= 0) & (along_a <= 1) & (along_b >= 0) & (along_b <= 1)
    points = a[:, :, None] + np.where(exists, along_a, 0.0)[..., None] * side_a[:, :, None]
    return points.reshape(len(a), -1, 2), exists.reshape(len(a), -1)


def clipped_polygon(corners: NDArray[np.floating], window: tuple[int, int, int, int]) -> tuple[Doubles, float]:
    """Return the part of a turned box (4, 2) within a window (left, top, right, bottom): its corners (k, 2) in pixels
    of the window, and its area in px.
    """
    left, top, right, bottom = window
    frame = corners_of(np.array([[(right - left) / 2, (bottom - top) / 2, right - left, bottom - top, 0]]))
    ring, n = _common_rings(np.asarray(corners, np.float64)[None] - np.array([left, top]), frame)
    return (ring[0, : n[0]], float(_areas(ring)[0])) if n[0] >= 3 else (np.zeros((0, 2)), 0.0)


def shared_area(first: Doubles, second: Doubles) -> float:
    """Return the area in px that two convex polygons (k, 2) of one window share."""
    if len(first) < 3 or len(second) < 3:
        return 0.0
    return float(_common_areas(first[None], second[None])[0])


def turned_around(lead: NDArray[np.floating], corners: Sequence[NDArray[np.floating]]) -> Float32Array:
    """Return the smallest box in the direction of `lead` (4, 2) that holds all corners: (4, 2) float32."""
    angle = boxes_of(lead)[0, 4]
    axes = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    along = np.concatenate(corners).astype(np.float64) @ axes.T
    low, high = along.min(0), along.max(0)
    centre = (low + high) / 2 @ axes
    return np.asarray(corners_of(np.array([[*centre, *(high - low), angle]]))[0], np.float32)
