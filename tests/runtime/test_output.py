"""Run lengths equal pycocotools', polygons and GeoJSON keep their coordinates, drawing leaves the input alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgekd.runtime.output import coco_rle, geojson, label_map, mask_rle, objects_json, overlay
from edgekd.types import ChainResult, Detections, Masks


@pytest.fixture
def result() -> ChainResult:
    found = Detections(
        np.array([[2, 3, 12, 9], [10, 4, 18, 14]], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([1, 0], np.int32),
    )
    windows = np.array([[2, 3, 12, 9], [10, 4, 18, 14]], np.int32)
    masks = Masks((20, 30), windows, (np.ones((6, 10), bool), np.ones((10, 8), bool)), np.array([0.8, 0.7], np.float32))
    return ChainResult(found, masks, ("tank", "ship"), {"total": 1.0})


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


def test_objects_are_json(result: ChainResult) -> None:
    first = json.loads(json.dumps(objects_json(result)))[0]
    assert first["class_name"] == "ship"
    assert first["xyxy"] == [2, 3, 12, 9]
    assert first["mask"]["size"] == [20, 30]


def test_the_more_confident_object_owns_a_pixel(result: ChainResult) -> None:
    labels = label_map(result)
    assert labels[5, 11] == 1
    assert labels[12, 17] == 2
    assert labels[0, 0] == 0


def test_overlay_draws_on_a_copy(result: ChainResult) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    drawn = overlay(picture, result)
    assert not picture.any()
    assert drawn[6, 6].any()


def test_geojson_follows_the_transform(result: ChainResult) -> None:
    collection = geojson(result, (2.0, 0.0, 1000.0, 0.0, -2.0, 500.0), "EPSG:32633")
    ring = np.array(collection["features"][0]["geometry"]["coordinates"][0][0])
    assert ring[0].tolist() == ring[-1].tolist()
    assert ring[:, 0].min() == 1000 + 2 * 2.5
    assert ring[:, 1].max() == 500 - 2 * 3.5
    assert collection["crs"]["properties"]["name"] == "EPSG:32633"
