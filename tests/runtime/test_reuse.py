"""Masks of a stream that are taken again: whose, when, for how long, and that the segmenter gets the others alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekd.errors import InputError
from edgekd.runtime.chain import ChainOptions
from edgekd.runtime.reuse import NEW_AFTER_FRAMES, ReusedMasks
from edgekd.types import ChainResult, Detections, Float32Array, Int32Array, Masks

PICTURE = np.zeros((100, 120, 3), np.uint8)


class Boxes:
    """Finds the boxes it was told; the mask of a box is its rectangle, and each call's boxes are kept."""

    def __init__(self, takes_boxes: bool = True, is_oriented: bool = False) -> None:
        head = SimpleNamespace(is_oriented=is_oriented)
        pipeline = SimpleNamespace(class_names=("a", "b"), head=head)
        self.manifest: Any = SimpleNamespace(pipeline=pipeline, kind="crop")
        self.segmenter: Any = SimpleNamespace(takes_boxes=takes_boxes)
        self.found = np.zeros((0, 4), np.float32)
        self.classes = np.zeros(0, np.int32)
        self.masked: list[int] = []

    def see(self, *boxes: tuple[float, ...], classes: tuple[int, ...] | None = None) -> None:
        self.found = np.array(boxes, np.float32).reshape(-1, 4)
        self.classes = np.array(classes or [0] * len(boxes), np.int32)

    def detect(self, picture: np.ndarray, options: Any) -> Detections:
        return Detections(self.found, np.full(len(self.found), 0.5, np.float32), self.classes)

    def __call__(self, picture: np.ndarray, options: Any, boxes: Float32Array, class_id: Int32Array) -> ChainResult:
        self.masked.append(len(boxes))
        windows = boxes.round().astype(np.int32)
        crops = [np.ones((b - t, r - x), bool) for x, t, r, b in windows]
        masks = Masks((picture.shape[0], picture.shape[1]), windows, crops, np.full(len(boxes), 0.9, np.float32))
        return ChainResult(Detections.from_boxes(boxes), masks, ("a", "b"))


def test_moved_boxes_alone_are_masked() -> None:
    chain = Boxes()
    reused = ReusedMasks(chain, 0.8)  # type: ignore[arg-type]
    chain.see((10, 10, 50, 50), (60, 10, 100, 50))
    reused(PICTURE, ChainOptions())
    chain.see((60, 30, 100, 70), (11, 10, 51, 50))  # the first moved far and now leads, the second by one pixel
    result = reused(PICTURE, ChainOptions())
    assert chain.masked == [2, 1] and (reused.n_masks, reused.n_reused) == (4, 1)
    np.testing.assert_array_equal(result.masks.windows, [(60, 30, 100, 70), (10, 10, 50, 50)])
    np.testing.assert_array_equal(result.detections.xyxy, chain.found)
    assert "total" in result.times_ms and result.masks.areas_px().tolist() == [1600, 1600]


def test_slow_objects_do_not_drift_away_from_their_masks() -> None:
    chain = Boxes()
    reused = ReusedMasks(chain, 0.8)  # type: ignore[arg-type]
    for step in range(NEW_AFTER_FRAMES):
        chain.see((10 + step, 10, 50 + step, 50))
        window = reused(PICTURE, ChainOptions()).masks.windows[0]
        assert abs(int(window[0]) - 10 - step) <= 4  # 5 px of 40 leave an IoU below 0.8
    assert 3 <= len(chain.masked) <= 6


def test_a_mask_is_made_anew_after_a_while_and_after_another_size() -> None:
    chain = Boxes()
    reused = ReusedMasks(chain)  # type: ignore[arg-type]
    chain.see((10, 10, 50, 50))
    for _ in range(NEW_AFTER_FRAMES + 2):
        reused(PICTURE, ChainOptions())
    assert chain.masked == [1, 1]
    assert reused(PICTURE[:90], ChainOptions()).masks.size_px == (90, 120) and chain.masked == [1, 1, 1]


def test_a_class_keeps_its_masks_and_no_object_has_none() -> None:
    chain = Boxes()
    reused = ReusedMasks(chain)  # type: ignore[arg-type]
    chain.see((10, 10, 50, 50), classes=(0,))
    reused(PICTURE, ChainOptions())
    chain.see((10, 10, 50, 50), (10, 10, 50, 50), classes=(1, 0))
    reused(PICTURE, ChainOptions())
    assert chain.masked == [1, 1]
    chain.see()
    assert len(reused(PICTURE, ChainOptions())) == 0


@given(st.lists(st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(1, 50)] * 2), max_size=6), st.floats(0.1, 0.95))
def test_every_box_has_its_mask_in_every_frame(places: list[tuple[int, ...]], iou: float) -> None:
    chain = Boxes()
    reused = ReusedMasks(chain, iou)  # type: ignore[arg-type]
    for shift in (0, 1, 3, 9):
        chain.see(*((x + shift, y, x + shift + w, y + h) for x, y, w, h in places))
        result = reused(PICTURE, ChainOptions())
        assert len(result.masks) == len(places)
        for box, window in zip(result.detections.xyxy, result.masks.windows, strict=True):
            low, high = np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])
            inter = np.clip(high - low, 0, None).prod()
            both = (box[2:] - box[:2]).prod() + (window[2:] - window[:2]).prod() - inter
            assert inter / both >= iou - 1e-6


@pytest.mark.parametrize(
    ("chain", "iou", "words"),
    [
        (Boxes(), 1.0, "reuse_masks is 1.0, expected a number between 0 and 1"),
        (Boxes(takes_boxes=False), 0.9, "expected masks of upright boxes"),
        (Boxes(is_oriented=True), 0.9, "expected masks of upright boxes"),
    ],
)
def test_what_cannot_be_is_one_sentence(chain: Any, iou: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ReusedMasks(chain, iou)
