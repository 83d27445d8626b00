"""Run lengths equal pycocotools'; polygons have exactly the pixels of their mask, with holes, and touch no self."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.runtime.results.regions import coco_rle, mask_rle, one_ring, polygons
from edgekd.types import Masks

MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14))


def area(ring: list[list[float]]) -> float:
    x, y = np.array(ring).T
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)


@settings(deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_equal_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    expected = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert coco_rle(mask)["counts"] == expected["counts"].decode()
    assert coco_rle(mask)["size"] == list(mask.shape)


@settings(deadline=None)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12)), st.integers(0, 3))
def test_run_lengths_of_a_crop_are_those_of_the_whole_mask(crop: np.ndarray, margin: int) -> None:
    height, width = crop.shape
    window = np.array([[margin, margin // 2, margin + width, margin // 2 + height]], np.int32)
    size = max(1, height + margin), max(1, width + margin)
    masks = Masks(size, window, (crop,), np.ones(1, np.float32))
    assert mask_rle(masks, 0) == coco_rle(masks.full(0))


def test_a_square_has_the_area_of_its_pixels() -> None:
    ((ring,),) = polygons(np.ones((10, 10), bool), (3, 5))
    assert ring == [[3, 5], [13, 5], [13, 15], [3, 15], [3, 5]]
    assert area(ring) == 100


def test_a_hole_is_kept_and_a_single_pixel_is_a_part() -> None:
    mask = np.zeros((7, 9), bool)
    mask[:5, :5] = True
    mask[1:4, 2] = False
    mask[6, 8] = True
    first, second = polygons(mask)
    assert [area(ring) for ring in first] == [25, -3]
    assert [area(ring) for ring in second] == [1]


@settings(deadline=None)
@given(MASKS)
def test_polygons_are_valid_and_cover_the_mask_exactly(mask: np.ndarray) -> None:
    geometry = pytest.importorskip("shapely.geometry")
    features = pytest.importorskip("rasterio.features")
    shapes = [geometry.Polygon(part[0], part[1:]) for part in polygons(mask)]
    assert all(shape.is_valid for shape in shapes)
    assert sum(shape.area for shape in shapes) == mask.sum()
    if shapes:
        assert (features.rasterize(shapes, mask.shape).astype(bool) == mask).all()


@settings(deadline=None)
@given(MASKS)
def test_one_ring_keeps_the_area(mask: np.ndarray) -> None:
    parts = polygons(mask)
    if parts:
        assert area(one_ring(parts)) == pytest.approx(mask.sum())
