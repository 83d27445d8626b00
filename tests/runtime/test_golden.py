"""The Python runtime on the golden vectors in tests/golden, which the C test program reads too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.graphs import ANGLE_LOGITS, BOX_LOGITS, CLASS_LOGITS, MASK_COEFFICIENTS, MASK_PROTOTYPES
from edgekd.model_set import CropInput, DetectorHead, ImageInput
from edgekd.runtime.crops import windows_of
from edgekd.runtime.detect import DetectOptions, Found, decode, detect, suppress
from edgekd.runtime.preprocess import Placement, place, preprocess
from edgekd.runtime.segment import MaskOptions, masks_from_logits, remove_small_regions
from edgekd.runtime.segmenters.yolo_seg import YoloSegSegmenter
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.runtime.turned_crops import cut_turned, frames_of, turned_masks
from edgekd.types import Detections

GOLDEN = Path(__file__).parent.parent / "golden"
Json = dict[str, Any]


def vectors(name: str) -> list[Any]:
    cases = json.loads((GOLDEN / f"{name}.json").read_text())
    assert cases
    return [pytest.param(case, id=case["name"]) for case in cases]


def expect(found: Detections, expected: list[Json]) -> None:
    assert len(found) == len(expected)
    np.testing.assert_allclose(found.xyxy, np.reshape([one["xyxy"] for one in expected], (-1, 4)), atol=1e-3)
    np.testing.assert_allclose(found.confidence, [one["confidence"] for one in expected], atol=1e-5)
    assert found.class_id.tolist() == [one["class_id"] for one in expected]


def bools(rows: list[str], width: int) -> np.ndarray:
    return np.array([[pixel == "1" for pixel in row] for row in rows], bool).reshape(len(rows), width)


def placed(case: Json) -> Placement:
    return place(tuple(case["picture_px"]), ImageInput.model_validate(case["spec"]))


@pytest.mark.parametrize("case", vectors("preprocess"))
def test_preprocess(case: Json) -> None:
    picture = np.array(case["pixels"], np.uint8).reshape(*case["picture_px"], 3)
    spec = ImageInput.model_validate(case["spec"])
    blob, placement = preprocess(picture, spec)
    assert [placement.scale_x, placement.scale_y] == case["scale"]
    assert [placement.left_px, placement.top_px] == case["offset_px"]
    assert list(placement.input_px) == case["input_px"] == list(blob.shape[2:])
    # An OpenCV for another processor may round a resized byte the other way: one level, not more.
    level = 0 if placement.resized_px == tuple(case["picture_px"]) else 1 / min(spec.std)
    np.testing.assert_allclose(blob.ravel(), case["blob"], atol=level + 1e-5)


@pytest.mark.parametrize("case", vectors("head"))
def test_head(case: Json) -> None:
    head = DetectorHead.model_validate(case["head"])
    options = DetectOptions(case["confidence"], case["iou"], case["max_boxes"], case["multi_label"])
    box_logits = np.array(case["box_logits"], np.float32).reshape(4 * head.reg_max, -1)
    class_logits = np.array(case["class_logits"], np.float32).reshape(-1, box_logits.shape[1])
    decoded, _ = decode(box_logits, class_logits, head, tuple(case["input_px"]), options)
    expect(decoded, case["decoded"])
    expect(decoded[suppress(decoded, options, head.end2end)], case["kept"])


@pytest.mark.parametrize("case", vectors("crops"))
def test_crops(case: Json) -> None:
    picture = np.array(case["pixels"], np.uint8).reshape(*case["picture_px"], 3)
    spec, picture_px = CropInput.model_validate(case["crop"]), tuple(case["picture_px"])
    boxes, turns = frames_of(np.array(case["corners"], np.float32).reshape(1, 4, 2), picture_px)
    windows = windows_of(boxes, spec.window_factor)
    assert windows.tolist() == [case["frame"]]
    found = cut_turned(picture, windows, turns, spec).astype(int).ravel()
    assert np.abs(found - case["cut"]).max() <= 1  # an OpenCV for another processor may round the other way
    logits = np.array(case["logits"], np.float32).reshape(1, spec.side_px, spec.side_px)
    options = MaskOptions(case["threshold"], case["min_region_px"])
    masks = turned_masks((logits, np.ones(1, np.float32)), windows, turns, picture_px, options)
    assert masks.windows[0].tolist() == case["window"]
    left, _, right, _ = case["window"]
    np.testing.assert_array_equal(masks.crops[0], bools(case["rows"], right - left))


@pytest.mark.parametrize("case", vectors("turned"))
def test_turned_boxes(case: Json) -> None:
    head = DetectorHead.model_validate(case["head"])
    options = DetectOptions(case["confidence"], case["iou"], case["max_boxes"], case["multi_label"])
    maps = {name: np.array(case[name], np.float32) for name in (BOX_LOGITS, CLASS_LOGITS, ANGLE_LOGITS)}
    rows = {BOX_LOGITS: 4 * head.reg_max, CLASS_LOGITS: 3, ANGLE_LOGITS: 1}
    outputs = {name: values.reshape(1, rows[name], -1) for name, values in maps.items()}
    found = detect(outputs, head, placed(case), options).detections
    expect(found, case["kept"])
    assert found.corners is not None
    np.testing.assert_allclose(found.corners.reshape(-1, 8), [one["corners"] for one in case["kept"]], atol=1e-3)


@pytest.mark.parametrize("case", vectors("yolo_seg"))
def test_yolo_seg(case: Json) -> None:
    placement, (height, width) = placed(case), case["picture_px"]
    cells = (-1, placement.input_px[0] // 4, placement.input_px[1] // 4)
    outputs = {
        MASK_PROTOTYPES: np.array(case["prototypes"], np.float32).reshape(1, *cells),
        MASK_COEFFICIENTS: np.array(case["coefficients"], np.float32).reshape(1, 3, -1),
    }
    boxes = Detections.from_boxes(np.array(case["boxes"], np.float32))
    found = Found(boxes, np.array(case["anchors"]), outputs, placement)
    picture = np.zeros((height, width, 3), np.uint8)
    masks = YoloSegSegmenter()(picture, found, MaskOptions(case["threshold"]), Stopwatch())
    assert masks.windows.tolist() == case["windows"]
    for crop, rows in zip(masks.crops, case["rows"], strict=True):
        np.testing.assert_array_equal(crop, bools(rows, crop.shape[1]))


@pytest.mark.parametrize("case", vectors("suppression"))
def test_suppression(case: Json) -> None:
    boxes = case["boxes"]
    found = Detections(
        np.array([one["xyxy"] for one in boxes], np.float32),
        np.array([one["confidence"] for one in boxes], np.float32),
        np.array([one["class_id"] for one in boxes], np.int32),
    )
    options = DetectOptions(iou=case["iou"], max_boxes=case["max_boxes"])
    expect(found[suppress(found, options, False)], case["kept"])


@pytest.mark.parametrize("case", vectors("prompts"))
def test_prompts(case: Json) -> None:
    placement = place(tuple(case["picture_px"]), ImageInput.model_validate(case["spec"]))
    boxes = np.array(case["boxes"], np.float32)
    np.testing.assert_allclose(placement.to_input(boxes), case["in_input"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(placement.to_picture(boxes), case["in_picture"], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("case", vectors("masks"))
def test_masks(case: Json) -> None:
    placement = place(tuple(case["picture_px"]), ImageInput.model_validate(case["spec"]))
    logits = np.array(case["logits"], np.float32).reshape(1, *case["grid"])
    options = MaskOptions(case["threshold"], case["min_region_px"])
    masks = masks_from_logits(logits, np.ones(1, np.float32), placement, options)
    assert masks.windows[0].tolist() == case["window"]
    left, _, right, _ = case["window"]
    np.testing.assert_array_equal(masks.crops[0], bools(case["rows"], right - left))


@pytest.mark.parametrize("case", vectors("cleanup"))
def test_cleanup(case: Json) -> None:
    mask = bools(case["rows"], len(case["rows"][0]))
    cleaned = remove_small_regions(mask, case["min_region_px"])
    np.testing.assert_array_equal(cleaned, bools(case["cleaned"], mask.shape[1]))
