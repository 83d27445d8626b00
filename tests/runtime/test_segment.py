"""Masks at picture resolution equal a full bilinear resize, whatever the window; chunks serve every box once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import InputError
from edgekd.model_set import ImageInput
from edgekd.runtime.preprocess import place
from edgekd.runtime.segment import MaskOptions, box_chunks, decode_masks, masks_from_logits, remove_small_regions

SPEC = ImageInput(
    height_px=64, width_px=64, place="top_left", interpolation="area", mean=(0, 0, 0), std=(1, 1, 1), pad=(0, 0, 0)
)


def smooth_logits(generator: np.random.Generator, n: int) -> np.ndarray:
    """Blobs: logits of a disc each, on the 16 x 16 grid of a 64 px input."""
    y, x = np.mgrid[0:16, 0:16] + 0.5
    centre, radius = generator.uniform(0, 16, (n, 2, 1, 1)), generator.uniform(1, 9, (n, 1, 1))
    return (radius - np.hypot(x - centre[:, 0], y - centre[:, 1])).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 150), st.integers(1, 150), st.integers(0, 10_000))
def test_windows_lose_nothing(height: int, width: int, seed: int) -> None:
    torch = pytest.importorskip("torch")
    logits = smooth_logits(np.random.default_rng(seed), 2)
    placement = place((height, width), SPEC)
    masks = masks_from_logits(logits, np.ones(2, np.float32), placement, MaskOptions())
    y = ((np.arange(height) + 0.5) * placement.scale_y) / 4 - 0.5
    x = ((np.arange(width) + 0.5) * placement.scale_x) / 4 - 0.5
    grid = np.stack(np.meshgrid((x + 0.5) / 8 - 1, (y + 0.5) / 8 - 1), -1).astype(np.float32)
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(logits)[None], torch.from_numpy(grid)[None], padding_mode="border", align_corners=False
    )[0].numpy()
    for index in range(2):
        different = masks.full(index) != (sampled[index] > 0)
        assert not (different & (np.abs(sampled[index]) > 1e-4)).any()


def test_an_empty_mask_is_an_empty_window() -> None:
    logits = np.full((1, 16, 16), -1, np.float32)
    masks = masks_from_logits(logits, np.ones(1, np.float32), place((100, 50), SPEC), MaskOptions())
    assert masks.full(0).shape == (100, 50)
    assert masks.areas_px().tolist() == [0]


@given(st.integers(0, 200), st.sampled_from([(), (1,), (1, 4, 8), (8, 32)]))
def test_chunks_serve_every_box_once(n_boxes: int, buckets: tuple[int, ...]) -> None:
    served = []
    for rows, size in box_chunks(n_boxes, buckets):
        count = len(range(*rows.indices(n_boxes)))
        assert count <= size
        assert not buckets or size in buckets
        served.extend(range(*rows.indices(n_boxes)))
    assert served == list(range(n_boxes))


class _EchoDecoder:
    """Returns each box's left edge as its logit, so that mixed-up rows show."""

    def infer(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        left = feeds["boxes"][:, 0]
        return {"low_res_masks": np.tile(left[:, None, None], (1, 16, 16)), "iou_predictions": left}


@pytest.mark.parametrize("buckets", [(), (1, 4, 8)])
def test_padding_of_buckets_does_not_reach_the_result(buckets: tuple[int, ...]) -> None:
    boxes = np.zeros((21, 4), np.float32)
    boxes[:, 0] = np.arange(21)
    low_res, iou = decode_masks(_EchoDecoder(), np.zeros((1, 256, 4, 4), np.float32), boxes, buckets)  # type: ignore[arg-type]
    assert iou.tolist() == list(range(21))
    assert low_res[:, 3, 3].tolist() == list(range(21))


def test_islands_and_holes_are_removed() -> None:
    mask = np.zeros((40, 40), bool)
    mask[5:30, 5:30] = True
    mask[10:12, 10:12] = False
    mask[35:37, 35:37] = True
    cleaned = remove_small_regions(mask, 10)
    assert cleaned[11, 11] and not cleaned[36, 36]
    assert cleaned.sum() == 25 * 25


def test_the_largest_island_stays_even_when_it_is_small() -> None:
    mask = np.zeros((10, 10), bool)
    mask[2:4, 2:4] = mask[7, 7] = True
    assert remove_small_regions(mask, 5).sum() == 4


def test_a_negative_area_is_refused() -> None:
    with pytest.raises(InputError, match="expected 0 or more"):
        MaskOptions(min_region_px=-1)


@pytest.mark.parametrize("size_px", range(4, 13))
def test_the_cleanup_leaves_small_objects_as_they_are(size_px: int) -> None:
    """A mask is kept in a window that is tight around its object: the corners of the window are not holes."""
    y, x = np.mgrid[0:64, 0:64] * 4 + 2.0
    logits = (size_px / 2 - np.hypot(x - 127, y - 131) / 4).astype(np.float32)[None]
    spec = ImageInput(
        height_px=256, width_px=256, place="top_left", interpolation="area",
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), pad=(0.0, 0.0, 0.0),
    )  # fmt: skip
    placement, iou = place((64, 64), spec), np.ones(1, np.float32)
    plain, cleaned = (
        masks_from_logits(logits, iou, placement, MaskOptions(min_region_px=limit)).full(0) for limit in (0, 100)
    )
    assert 0 < plain.sum() <= size_px**2
    assert (plain & cleaned).sum() / (plain | cleaned).sum() >= 0.95
