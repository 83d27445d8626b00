"""Small islands and holes are removed from a mask: (h, w) bool in, (h, w) bool out."""

from __future__ import annotations

import cv2
import numpy as np

from edgekd.types import BoolArray


def remove_small_regions(mask: BoolArray, min_region_px: int) -> BoolArray:
    """Fill holes, then drop islands, that cover less than `min_region_px` pixels.

    Regions are 8-connected, holes that touch the border count as holes, and the largest island stays even when it is
    smaller than the limit: the rules of Segment Anything's `remove_small_regions`.
    """
    if not mask.any():
        return mask
    filled = mask | _small_components(~mask, min_region_px, keep_largest=False)
    return np.asarray(filled & ~_small_components(filled, min_region_px, keep_largest=True), np.bool_)


def _small_components(region: BoolArray, min_region_px: int, keep_largest: bool) -> BoolArray:
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas < min_region_px
    small[0] = False
    if keep_largest and n_labels > 1:
        small[1 + int(areas[1:].argmax())] = False
    return np.asarray(small[labels], np.bool_)
