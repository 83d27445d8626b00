"""What a labelled picture can tell: outlines, masks, turned boxes; and run lengths against COCO's own library."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekd.data.labels import LabelledPicture, LabelledSet, draw_mask, mask_rings
from edgekd.data.rle import coco_masks, decode_rle
from edgekd.errors import DataError
from edgekd.measure.coco_metrics import encode_labels, mask_ious

RNG = np.random.default_rng(5)


def picture_of(segmentation: Any, xyxy: tuple[float, ...] = (4, 6, 20, 30), size_px=(40, 50)) -> LabelledPicture:
    return LabelledPicture(
        path=Path("a.png"),
        size_px=size_px,
        xyxy=np.array([xyxy], np.float32),
        class_id=np.zeros(1, np.int32),
        area_px=np.ones(1),
        crowd=np.zeros(1, np.bool_),
        segmentations=(segmentation,),
        class_names=("thing",),
    )


def test_run_lengths_equal_pycocotools() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    for size in [(1, 1), (7, 5), (40, 50), (300, 3)]:
        mask = (RNG.random(size) < 0.4).astype(np.uint8)
        packed = mask_api.encode(np.asfortranarray(mask))
        for counts in (packed["counts"], packed["counts"].decode()):
            np.testing.assert_array_equal(decode_rle({"size": list(size), "counts": counts}, size), mask)
        flat = mask.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat]))) if flat.any() else np.array([], int)
        runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        np.testing.assert_array_equal(decode_rle({"size": list(size), "counts": runs}, size), mask)


@pytest.mark.parametrize(
    "rle",
    [
        {}, {"size": [40, 50]}, {"size": [40, 51], "counts": [2000]}, {"size": [40, 50], "counts": [1999]},
        {"size": [40, 50], "counts": [-5, 2005]}, {"size": [40, 50], "counts": ["a"]},
        {"size": [40, 50], "counts": [1e40]}, {"size": [40, 50], "counts": "\u00ff"},
        {"size": [40, 50], "counts": "o" * 99}, {"size": [40, 50], "counts": [[1], [2, 3]]}, {"size": 3, "counts": [1]},
    ],
)  # fmt: skip
def test_damaged_run_lengths_are_refused(rle: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        decode_rle(rle, (40, 50))


def test_masks_and_outlines_agree() -> None:
    box = picture_of(None)
    assert int(box.mask(0)[7:29, 5:19].sum()) == 22 * 14
    ring = [[4.0, 6.0, 20.0, 6.0, 20.0, 30.0]]
    np.testing.assert_array_equal(picture_of(ring).mask(0), draw_mask(picture_of(ring).rings(0), (40, 50)))
    mask = np.zeros((40, 50), np.uint8)
    mask[3:9, 4:30] = mask[20:25, 10:12] = mask[38, 40] = 1
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    coded = picture_of({"size": [40, 50], "counts": runs})
    np.testing.assert_array_equal(coded.mask(0), mask)
    np.testing.assert_array_equal(draw_mask(coded.rings(0), (40, 50)), mask)


def test_training_draws_the_mask_that_evaluation_takes() -> None:
    rings = []
    for _ in range(30):
        centre, radii, turns = RNG.uniform(40, 80, 2), RNG.uniform(15, 40, 9), np.linspace(0, 5.6, 9)
        rings.append((centre + radii[:, None] * np.stack([np.cos(turns), np.sin(turns)], 1)).astype(np.float32))
    for ring, other in zip(rings, rings[1:], strict=False):
        picture = picture_of([ring.ravel().tolist(), other.ravel().tolist()], size_px=(120, 160))
        ours = coco_masks().encode(np.asfortranarray(picture.mask(0)))
        assert mask_ious([ours], encode_labels(picture)) == 1


def test_corners_are_places_on_the_pixel_grid() -> None:
    mask = draw_mask([np.array([[4, 6], [20, 6], [20, 30], [4, 30]], np.float32)], (40, 50))
    expected = np.zeros_like(mask)
    expected[6:30, 4:20] = 1
    np.testing.assert_array_equal(mask, expected)
    beyond = draw_mask([np.array([[-3, -3], [4, -3], [4, 99], [-3, 99]], np.float32)], (6, 7))
    np.testing.assert_array_equal(beyond, np.repeat([[1, 1, 1, 1, 0, 0, 0]], 6, 0))
    assert not draw_mask([np.zeros((0, 2), np.float32), np.full((3, 2), 9, np.float32)], (6, 7)).any()


@given(arrays(np.uint8, (13, 17), elements=st.integers(0, 1)))
def test_rings_of_any_mask_are_filled_back(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(draw_mask(mask_rings(mask), mask.shape), mask)


@pytest.mark.filterwarnings("ignore")  # pycocotools itself
def test_outlines_for_other_tools_have_the_area_of_the_mask() -> None:
    mask_api = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((40, 50), np.uint8)
    mask[3:9, 4:30] = mask[20:30, 10:22] = 1
    mask[23:26, 13:15] = 0
    flat = mask.T.ravel()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    coded = picture_of({"size": [40, 50], "counts": np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()})
    parts = coded.outlines(0)
    assert [cv2.contourArea(ring) for ring in parts] == [6 * 26, 10 * 12]
    ring = coded.one_outline(0)
    assert cv2.contourArea(ring) == mask.sum()
    drawn = mask_api.decode(mask_api.frPyObjects([parts[0].ravel().astype(float).tolist()], 40, 50))[:, :, 0]
    np.testing.assert_array_equal(drawn[:10], mask[:10])
    two = picture_of([[4, 6, 20, 6, 20, 30], [30, 30, 40, 30, 40, 40]])
    assert cv2.contourArea(two.one_outline(0)) == 16 * 24 / 2 + 50
    with pytest.raises(DataError, match="empty mask"):
        picture_of({"size": [40, 50], "counts": [2000]}).one_outline(0)


def test_turned_boxes_are_the_corners_they_came_from() -> None:
    for degrees in (0, 17, 45, 80, 90):
        turn = np.deg2rad(degrees)
        along, across = np.array([np.cos(turn), np.sin(turn)]) * 9, np.array([-np.sin(turn), np.cos(turn)]) * 4
        corners = np.array([25, 20]) + np.array([-along - across, along - across, along + across, across - along])
        x, y, w, h, angle = picture_of([corners.ravel().tolist()]).oriented_boxes()[0]
        assert (x, y) == pytest.approx((25, 20), abs=1e-3)
        assert sorted((w, h)) == pytest.approx([8, 18], abs=1e-3) and 0 <= angle <= np.pi / 2 + 1e-6
        long_axis = angle if w > h else angle + np.pi / 2
        assert abs(np.sin(long_axis - turn)) < 1e-3


def test_pictures_at_even_distances() -> None:
    pictures = tuple(replace(picture_of(None), path=Path(f"{index}.png")) for index in range(10))
    labels = LabelledSet(Path("a"), ("thing",), pictures)
    assert [picture.path.stem for picture in labels.spread(4).pictures] == ["0", "3", "6", "9"]
    assert labels.spread(None) is labels and labels.spread(99) is labels and len(labels.spread(1)) == 1


def test_objects_are_taken_together() -> None:
    one = picture_of(None)
    assert len(one.take(np.array([False]))) == 0 and len(one.take(np.array([0]))) == 1
    assert one.take(np.array([True])).segmentations == (None,)
