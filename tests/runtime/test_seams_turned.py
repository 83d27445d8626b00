"""Turned objects at seams: each leaves once, in its own direction, whether a tile sees it whole or not."""

from __future__ import annotations

import numpy as np
from test_seams import GRID, SIZE

from edgekd.runtime.oriented import clipped_polygon, corners_of, enclosing, turned_around, turned_ious
from edgekd.runtime.seams import Seams
from edgekd.runtime.tiles import Window
from edgekd.types import Detections, Masks


def look(tile: Window, corners: np.ndarray, class_id: np.ndarray) -> Detections:
    """What a perfect oriented detector finds within a tile: boxes around the visible parts, in their direction."""
    boxes, classes, shares = [], [], []
    for quad, number in zip(corners, class_id, strict=True):
        polygon, area = clipped_polygon(quad, tile)
        if area >= 60:
            boxes.append(turned_around(quad, [polygon]))
            classes.append(number)
            shares.append(area / abs(np.linalg.det(quad[[1, 3]] - quad[0])))
    turned = np.array(boxes, np.float32).reshape(-1, 4, 2)
    limits = np.array([tile[2] - tile[0], tile[3] - tile[1]] * 2, np.float32)
    confidence = (0.5 + 0.4 * np.array(shares)).astype(np.float32)
    return Detections(enclosing(turned).clip(0, limits), confidence, np.array(classes, np.int32), turned)


def found_in(corners: np.ndarray, class_id: np.ndarray) -> Detections:
    seams = Seams(SIZE)
    for tile in GRID:
        seams.add(tile, look(tile, corners, class_id), None)
    found, masks = seams.take()
    assert masks is None
    return found


def scattered(size: tuple[float, float], step: int) -> np.ndarray:
    generator = np.random.default_rng(4)
    y, x = np.mgrid[90 : SIZE[0] - 90 : step, 90 : SIZE[1] - 90 : step]
    n = x.size
    angle = generator.uniform(-0.7, 2.3, n)
    rows = np.stack([x.ravel(), y.ravel(), np.full(n, size[0]), np.full(n, size[1]), angle], 1)
    return corners_of(rows).astype(np.float32)


def assert_each_once(found: Detections, corners: np.ndarray, lowest: float) -> None:
    assert len(found) == len(corners) and found.corners is not None
    ious = turned_ious(corners, found.corners)
    assert ious.max(1).min() >= lowest
    assert len(set(ious.argmax(1))) == len(corners)


def test_objects_that_a_tile_sees_whole_leave_once() -> None:
    corners = scattered((70, 16), 95)
    assert_each_once(found_in(corners, np.zeros(len(corners), np.int32)), corners, 0.95)


def test_long_objects_are_united_in_their_direction() -> None:
    rows = np.array([[650, 250, 1000, 40, 0.15], [500, 650, 800, 30, -0.3], [1100, 500, 60, 700, 0.2]])
    corners = corners_of(rows).astype(np.float32)
    assert_each_once(found_in(corners, np.arange(3, dtype=np.int32)), corners, 0.9)


def test_crossing_objects_of_one_class_stay_two() -> None:
    corners = corners_of(np.array([[350, 350, 90, 14, 0.785], [350, 350, 90, 14, 2.356]])).astype(np.float32)
    assert_each_once(found_in(corners, np.zeros(2, np.int32)), corners, 0.95)


def test_masks_go_with_their_turned_boxes() -> None:
    corners = scattered((60, 20), 200)
    seams = Seams(SIZE)
    for tile in GRID:
        seen = look(tile, corners, np.zeros(len(corners), np.int32))
        windows = np.concatenate([np.floor(seen.xyxy[:, :2]), np.ceil(seen.xyxy[:, 2:])], 1).astype(np.int32)
        crops = [np.ones((b - t, r - x), bool) for x, t, r, b in windows]
        seams.add(tile, seen, Masks((400, 400), windows, crops, np.full(len(crops), 0.9, np.float32)))
    found, masks = seams.take()
    assert masks is not None and len(masks) == len(corners)
    assert_each_once(found, corners, 0.95)
