"""A tiled chain answers like the chain it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from perfect_chain import PerfectChain, draw

from edgekd.runtime.chain import Chain
from edgekd.runtime.tiled_chain import TiledChain
from edgekd.runtime.tiles import TileOptions
from edgekd.types import ChainResult, Detections


class BoxChain(PerfectChain):
    """Segments the bright pixels within given boxes."""

    def __call__(self, picture: np.ndarray, options: Any = None, boxes: np.ndarray | None = None) -> ChainResult:
        result = super().__call__(picture)
        if boxes is None:
            return result
        order = [int(np.abs(result.detections.xyxy - box).sum(1).argmin()) for box in boxes]
        found = result[np.array(order)]
        return ChainResult(Detections.from_boxes(boxes), found.masks, found.class_names)


@pytest.fixture
def chain() -> Any:
    return BoxChain()


def test_it_finds_what_the_chain_finds(chain: Chain) -> None:
    picture, _ = draw((400, 500), 50)
    tiled, whole = TiledChain(chain, TileOptions(128, 32)), chain(picture)
    assert tiled.manifest is chain.manifest
    for found in (tiled.detect(picture), tiled(picture).detections):
        np.testing.assert_array_equal(np.sort(found.xyxy, 0), np.sort(whole.detections.xyxy, 0))


def test_given_boxes_keep_their_order(chain: Chain) -> None:
    picture, _ = draw((400, 500), 50)
    whole = chain(picture)
    boxes = whole.detections.xyxy[np.random.default_rng(0).permutation(len(whole))]
    result = TiledChain(chain, TileOptions(128, 32))(picture, boxes=boxes)
    np.testing.assert_array_equal(result.masks.windows, boxes.astype(np.int32))
    assert (result.masks.areas_px() >= 25).all()
