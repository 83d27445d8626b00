"""Crops turned with their box: of an upright box they are the upright ones, and masks come back where they belong."""

from __future__ import annotations

import math

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.model_set import CropInput
from edgekd.runtime.crops import cut, lattice_of, windows_of
from edgekd.runtime.oriented import corners_of
from edgekd.runtime.segment import MaskOptions, masks_on_lattices
from edgekd.runtime.turned_crops import cut_boxes, cut_turned, frames_of, masks_of_boxes, turned_masks
from edgekd.types import Detections

PICTURE_PX = (120, 160)
SPEC = CropInput(side_px=16, window_factor=1.3, pad=(114.0, 10.0, 200.0))
PICTURE = np.random.default_rng(0).integers(0, 256, (*PICTURE_PX, 3), dtype=np.uint8)
LOGITS = np.random.default_rng(1).normal(0, 2, (1, 16, 16)).astype(np.float32)
IOU = np.ones(1, np.float32)

centre, side = st.tuples(st.floats(0, 160, width=32), st.floats(0, 120, width=32)), st.floats(0, 90, width=32)


def turned(x: float, y: float, width: float, height: float, angle: float) -> np.ndarray:
    return corners_of(np.array([[x, y, width, height, angle]])).astype(np.float32)


@settings(deadline=None, max_examples=60)
@given(centre, side, side, st.integers(0, 1))
def test_of_an_upright_box_crop_and_mask_are_the_upright_ones(
    at: tuple[float, float], width: float, height: float, cleans: int
) -> None:
    x, y, half = *at, np.float32(0.5)
    box = np.array([[x - half * width, y - half * height, x + half * width, y + half * height]], np.float32)
    corners = box[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(1, 4, 2)
    upright = box.clip(0, np.array([*PICTURE_PX[::-1]] * 2, np.float32))
    boxes, turns = frames_of(corners, PICTURE_PX)
    windows = windows_of(boxes, SPEC.window_factor)
    np.testing.assert_array_equal(windows, windows_of(upright, SPEC.window_factor))
    np.testing.assert_array_equal(cut_turned(PICTURE, windows, turns, SPEC), cut(PICTURE, windows, SPEC))
    options = MaskOptions(0.2, 25 * cleans)
    expected = masks_on_lattices(LOGITS, [lattice_of(windows[0], 16, PICTURE_PX)], IOU, PICTURE_PX, options)
    found = turned_masks((LOGITS, IOU), windows, turns, PICTURE_PX, options)
    np.testing.assert_array_equal(found.full(0), expected.full(0))


def test_a_quarter_turn_turns_the_crop() -> None:
    """The same part of the picture, seen by a box that stands on its side: its x axis points down."""
    upright = cut(PICTURE, np.array([[40, 50, 72, 98]], np.int32), SPEC)[0]
    spec = SPEC.model_copy(update={"window_factor": 1.0})
    on_its_side = turned(56, 74, 48, 32, math.pi / 2)
    found = cut_boxes(PICTURE, Detections(np.zeros((1, 4), np.float32), IOU, np.zeros(1, np.int32), on_its_side), spec)
    assert np.abs(np.rot90(upright).astype(int) - found[0]).max() <= 1
    assert np.abs(upright.astype(int) - found[0]).max() > 50


@settings(deadline=None, max_examples=40)
@given(centre, st.floats(3, 90), st.floats(3, 90), st.floats(-math.pi, math.pi))
def test_a_mask_covers_the_pixels_of_its_window_and_no_others(
    at: tuple[float, float], width: float, height: float, angle: float
) -> None:
    corners = turned(*at, width, height, angle)
    boxes, turns = frames_of(corners, PICTURE_PX)
    windows = windows_of(boxes, SPEC.window_factor)
    full = turned_masks((np.ones((1, 16, 16), np.float32), IOU), windows, turns, PICTURE_PX, MaskOptions()).full(0)
    # The same window, turned about the box's centre by the angle that the test asked for.
    y, x = np.mgrid[: PICTURE_PX[0], : PICTURE_PX[1]] + 0.5
    middle = corners[0].mean(0)
    across = math.cos(angle) * (x - middle[0]) + math.sin(angle) * (y - middle[1]) + middle[0]
    down = math.cos(angle) * (y - middle[1]) - math.sin(angle) * (x - middle[0]) + middle[1]
    left, top, right, bottom = windows[0]
    depth = np.minimum(np.minimum(across - left, right - across), np.minimum(down - top, bottom - down))
    assert full[depth > 1e-2].all() and not full[depth < -1e-2].any()


def test_what_the_crop_shows_comes_back_as_the_mask() -> None:
    """A bright parallelogram is cut, a network that answers with its brightness says so, and the mask lies over it."""
    for angle in np.linspace(-0.7, 2.3, 9):
        quad = turned(80, 60, 60, 24, angle)
        picture = np.zeros((*PICTURE_PX, 3), np.uint8)
        cv2.fillConvexPoly(picture, (quad[0] * 16 - 8).round().astype(np.int32), (255, 255, 255), shift=4)
        found = Detections(np.zeros((1, 4), np.float32), IOU, np.zeros(1, np.int32), quad)
        spec = SPEC.model_copy(update={"side_px": 64})
        crops = cut_boxes(picture, found, spec)
        bright = crops[0, ..., 0] > 127
        assert abs(bright.any(0).sum() - 64 / 1.3) <= 3 and abs(bright.any(1).sum() - 64 / 1.3) <= 3
        logits = crops[..., 0].astype(np.float32) - 127
        mask, truth = masks_of_boxes((logits, IOU), found, PICTURE_PX, spec, MaskOptions()).full(0), picture[..., 0] > 0
        assert (mask & truth).sum() / (mask | truth).sum() > 0.93


def test_a_box_that_leaves_the_picture_ends_with_it() -> None:
    boxes, turns = frames_of(turned(150, 60, 80, 20, 0.4), PICTURE_PX)
    width, height = boxes[0, 2:] - boxes[0, :2]
    assert width < 60 and abs(height - 20) < 1e-4  # a corner of the box near its middle still lies in the picture
    assert np.allclose(turns[0], [math.cos(0.4), math.sin(0.4), 150, 60], atol=1e-5)
    outside, turns = frames_of(turned(400, 300, 80, 20, 0.4), PICTURE_PX)
    windows = windows_of(outside, SPEC.window_factor)
    assert (windows[:, 2:] - windows[:, :2] <= 2).all()
    masks = turned_masks((np.ones((1, 16, 16), np.float32), IOU), windows, turns, PICTURE_PX, MaskOptions())
    assert masks.areas_px().tolist() == [0]


def test_a_large_window_is_sampled_in_parts_without_seams() -> None:
    """600 px are sampled in parts of 512; without a resize they are the same pixels as windows of 300 px give."""
    turn = np.array([[math.cos(0.3), math.sin(0.3), 80.0, 60.0]])
    whole = cut_turned(
        PICTURE, np.array([[-200, -250, 400, 350]], np.int32), turn, SPEC.model_copy(update={"side_px": 600})
    )[0]
    for row in (0, 300):
        for column in (0, 300):
            part = np.array([[column - 200, row - 250, column + 100, row + 50]], np.int32)
            found = cut_turned(PICTURE, part, turn, SPEC.model_copy(update={"side_px": 300}))[0]
            np.testing.assert_array_equal(whole[row : row + 300, column : column + 300], found)
    assert len(np.unique(whole)) > 200
