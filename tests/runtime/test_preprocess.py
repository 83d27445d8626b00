"""The network's input equals Ultralytics' and SAM's own preprocessing, and boxes find their way back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import InputError
from edgekd.model_set import ImageInput
from edgekd.runtime.preprocess import check_picture, place, preprocess

LETTERBOX = ImageInput(
    height_px=64, width_px=96, place="centre", interpolation="linear",
    mean=(0, 0, 0), std=(255, 255, 255), pad=(114, 114, 114),
)  # fmt: skip
SAM = ImageInput(
    height_px=64, width_px=64, place="top_left", interpolation="area",
    mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), pad=(123.675, 116.28, 103.53),
)  # fmt: skip


def random_picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(64, 96), (31, 77), (200, 40), (1, 1), (3, 500)])
def test_letterbox_equals_ultralytics(size: tuple[int, int]) -> None:
    augment = pytest.importorskip("ultralytics.data.augment")
    picture = random_picture(*size)
    blob, _ = preprocess(picture, LETTERBOX)
    if min(round(side * min(64 / size[0], 96 / size[1])) for side in size) < 1:
        pytest.skip("Ultralytics cannot letterbox a side that rounds to nothing")
    expected = augment.LetterBox((64, 96), auto=False)(image=picture)
    np.testing.assert_allclose(blob[0], expected[:, :, ::-1].transpose(2, 0, 1) / np.float32(255), atol=1e-6)


def test_sam_input_is_zero_where_there_is_no_picture() -> None:
    picture = random_picture(32, 64)
    blob, placement = preprocess(picture, SAM)
    assert placement.resized_px == (32, 64)
    assert not blob[0, :, 32:].any()
    expected = (picture[:, :, ::-1].transpose(2, 0, 1) - np.array(SAM.mean)[:, None, None]) / np.array(SAM.std)[
        :, None, None
    ]
    np.testing.assert_allclose(blob[0, :, :32], expected, atol=1e-5)


def test_shrinking_averages_areas() -> None:
    picture = random_picture(128, 128)
    blob, _ = preprocess(picture, SAM)
    mean = cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA)[0, 0, 2]
    assert blob[0, 0, 0, 0] == pytest.approx((float(mean) - SAM.mean[0]) / SAM.std[0], abs=1e-5)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 3000), st.data())
def test_boxes_return_where_they_came_from(height: int, width: int, data: st.DataObject) -> None:
    placement = place((height, width), data.draw(st.sampled_from([LETTERBOX, SAM])))
    corners = data.draw(st.tuples(*[st.floats(0, 1)] * 4))
    x = sorted((corners[0] * width, corners[2] * width))
    y = sorted((corners[1] * height, corners[3] * height))
    box = np.array([[x[0], y[0], x[1], y[1]]], np.float32)
    back = placement.to_picture(placement.to_input(box))
    np.testing.assert_allclose(back, box, atol=max(height, width) * 1e-4 + 1e-3)


@pytest.mark.parametrize(
    "picture",
    [
        None,
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 70_000, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="expected") as caught:
        check_picture(picture)
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_the_smallest_size_that_holds_the_picture_is_fed_at_the_full_scale(height: int, width: int) -> None:
    smaller = ((32, 64), (64, 32), (48, 64), (64, 48))
    full = place((height, width), SAM)
    placement = place((height, width), SAM.model_copy(update={"smaller_sizes_px": smaller}))
    assert (placement.scale_x, placement.scale_y) == (full.scale_x, full.scale_y)
    assert placement.resized_px == full.resized_px
    holding = [(h, w) for h, w in (*smaller, (64, 64)) if h >= full.resized_px[0] and w >= full.resized_px[1]]
    assert placement.input_px == min(holding, key=lambda size: size[0] * size[1])


def test_a_smaller_size_is_filled_and_centred() -> None:
    spec = LETTERBOX.model_copy(update={"width_px": 64, "smaller_sizes_px": ((48, 64),)})
    blob, placement = preprocess(random_picture(40, 64), spec)
    assert blob.shape == (1, 3, 48, 64) and placement.top_px == 4
    full, _ = preprocess(random_picture(40, 64), spec.model_copy(update={"smaller_sizes_px": ()}))
    np.testing.assert_array_equal(blob, full[:, :, 8:56])


def test_a_size_larger_than_the_full_one_is_refused() -> None:
    with pytest.raises(ValueError, match="exceeds"):
        ImageInput.model_validate(SAM.model_dump() | {"smaller_sizes_px": ((96, 64),)})
