"""A result that can be checked by eye: a tank and a ship that overlap, on a picture of 30x20 px."""

from __future__ import annotations

import numpy as np

from edgekd.types import ChainResult, Detections, Masks


def small_result(names: tuple[str, ...] = ("tank", "ship")) -> ChainResult:
    found = Detections(
        np.array([[2, 3, 12, 9], [10, 4, 18, 14]], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([1, 0], np.int32),
    )
    windows = np.array([[2, 3, 12, 9], [10, 4, 18, 14]], np.int32)
    masks = Masks((20, 30), windows, (np.ones((6, 10), bool), np.ones((10, 8), bool)), np.array([0.8, 0.7], np.float32))
    return ChainResult(found, masks, names, {"total": 1.0})
