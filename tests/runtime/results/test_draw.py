"""Drawing leaves the input alone, names hide neither each other nor small objects, hostile names do no harm."""

from __future__ import annotations

import numpy as np
from small_result import small_result

from edgekd.runtime.results.draw import mask_preview, overlay, place_name


def test_overlay_draws_on_a_copy() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    drawn = overlay(picture, small_result())
    assert not picture.any()
    assert drawn[6, 6].any()


def test_names_without_an_encoding_are_drawn_as_escapes() -> None:
    overlay(np.zeros((20, 30, 3), np.uint8), small_result(("\ud800", "a\x1b[31m\n")))


def test_the_preview_shows_every_mask() -> None:
    preview = mask_preview(small_result())
    assert preview.shape == (20, 30, 3)
    assert len(np.unique(preview.reshape(-1, 3), axis=0)) == 3


def test_names_keep_apart_and_off_small_objects() -> None:
    canvas = np.zeros((200, 200, 3), np.uint8)
    small, large = (60, 88, 68, 96), (50, 100, 150, 180)
    boxes = np.array([small, large], np.float32)
    first = place_name((60, 12), large, boxes, [], canvas)
    assert not (first[0] < small[2] and first[2] > small[0] and first[1] < small[3] and first[3] > small[1])
    second = place_name((60, 12), large, boxes, [first], canvas)
    assert second[0] >= first[2] or second[2] <= first[0] or second[1] >= first[3] or second[3] <= first[1]
    corner = place_name((60, 12), (0, 0, 5, 5), boxes, [], canvas)
    assert corner[0] >= 0 and corner[1] >= 0
