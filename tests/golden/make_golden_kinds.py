"""The golden vectors of turned boxes, crops and the kind yolo-seg, for make_golden.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from make_golden import LETTERBOX, Json, boxes_json, rounded, rows

from edgekd.graphs import ANGLE_LOGITS, BOX_LOGITS, CLASS_LOGITS, MASK_COEFFICIENTS, MASK_PROTOTYPES
from edgekd.model_set import CropInput, DetectorHead
from edgekd.runtime.crops import windows_of
from edgekd.runtime.detect import DetectOptions, Found, detect
from edgekd.runtime.oriented import corners_of
from edgekd.runtime.preprocess import place
from edgekd.runtime.segment import MaskOptions
from edgekd.runtime.segmenters.yolo_seg import YoloSegSegmenter, finer_cells
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.runtime.turned_crops import cut_turned, frames_of, turned_masks
from edgekd.types import Detections


def turned_case(name: str, rng: np.random.Generator, angle: str, options: DetectOptions) -> Json:
    """An oriented head on a letterboxed picture: corners in pixels of the picture."""
    head = DetectorHead(strides_px=(8, 16), reg_max=4, end2end=False, name="obb", angle=angle)
    spec = LETTERBOX.model_copy(update={"height_px": 48, "width_px": 64})
    placement = place((91, 150), spec)
    n_anchors = 6 * 8 + 3 * 4
    maps = {
        BOX_LOGITS: rng.normal(0, 1.5, (1, 16, n_anchors)),
        CLASS_LOGITS: rng.normal(-1, 2, (1, 3, n_anchors)),
        ANGLE_LOGITS: rng.normal(0, 1.5, (1, 1, n_anchors)),
    }
    outputs = {key: value.round(3).astype(np.float32) for key, value in maps.items()}
    found = detect(outputs, head, placement, options).detections
    unsuppressed = detect(outputs, head, placement, replace(options, iou=1.0)).detections
    assert found.corners is not None and 5 < len(found) < len(unsuppressed) - 3
    return {
        "name": name,
        "head": head.model_dump(),
        "picture_px": [91, 150],
        "spec": spec.model_dump(),
        "box_logits": rounded(outputs[BOX_LOGITS]),
        "class_logits": rounded(outputs[CLASS_LOGITS]),
        "angle_logits": rounded(outputs[ANGLE_LOGITS]),
        "confidence": options.confidence,
        "iou": options.iou,
        "max_boxes": options.max_boxes,
        "multi_label": options.multi_label,
        "kept": [
            one | {"corners": rounded(corners)} for one, corners in zip(boxes_json(found), found.corners, strict=True)
        ],
    }


def turned_cases(rng: np.random.Generator) -> list[Json]:
    return [
        turned_case("logits of a sigmoid", rng, "sigmoid", DetectOptions(0.4, 0.3)),
        turned_case("radians, every label", rng, "radians", DetectOptions(0.5, 0.5, multi_label=True)),
    ]


CROP = CropInput(side_px=10, window_factor=1.3, pad=(10.0, 114.0, 200.0))


def crop_case(name: str, rng: np.random.Generator, picture: np.ndarray, box: list[float]) -> Json:
    """A crop of a turned box (centre x, centre y, width, height, angle), and a mask on its way back."""
    height, width = picture.shape[:2]
    corners = corners_of(np.array([box])).astype(np.float32)
    boxes, turns = frames_of(corners, (height, width))
    windows = windows_of(boxes, CROP.window_factor)
    logits = rng.normal(0.3, 1, (1, CROP.side_px, CROP.side_px)).round(3).astype(np.float32)
    masks = turned_masks((logits, np.ones(1, np.float32)), windows, turns, (height, width), MaskOptions(0.1, 12))
    return {
        "name": name,
        "crop": CROP.model_dump(),
        "picture_px": [height, width],
        "pixels": picture.ravel().tolist(),
        "corners": rounded(corners, 9),
        "frame": windows[0].tolist(),
        "cut": cut_turned(picture, windows, turns, CROP).ravel().tolist(),
        "logits": rounded(logits),
        "threshold": 0.1,
        "min_region_px": 12,
        "window": masks.windows[0].tolist(),
        "rows": rows(masks.crops[0]),
    }


def crop_cases(rng: np.random.Generator) -> list[Json]:
    picture = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
    boxes = {
        "upright, inside": [15.5, 12.0, 14, 7, 0.0],
        "upright, over an edge": [2.0, 20.0, 14, 12, 0.0],
        "turned, larger than the crop": [15.3, 11.1, 17.5, 12.25, 0.5],
        "turned, smaller than the crop": [12.7, 9.2, 4.5, 3, 2.1],
        "turned, mixed sides": [14, 11, 25, 4, -0.6],
        "a quarter turn": [15, 11, 12, 8, np.pi / 2],
        "turned over a corner": [29, 2, 20, 14, 0.9],
        "half a turn": [10, 10, 6, 9, np.pi],
        "wholly outside": [60, 40, 6, 9, 0.3],
        "no width": [15, 11, 0, 9, 0.3],
        "no area": [15.2, 11.7, 0, 0, 0.3],
    }
    return [crop_case(name, rng, picture, [float(value) for value in box]) for name, box in boxes.items()]


def yolo_seg_case(
    rng: np.random.Generator, picture_px: tuple[int, int], network_px: tuple[int, int], factor: int
) -> Json:
    """Masks from prototypes whose cells are divided by `factor`, because of the padding of the input."""
    spec = LETTERBOX.model_copy(update={"height_px": network_px[0], "width_px": network_px[1]})
    placement = place(picture_px, spec)
    assert finer_cells(placement) == factor
    cells = (network_px[0] // 4, network_px[1] // 4)
    prototypes = rng.normal(0, 1, (1, 3, *cells)).round(3).astype(np.float32)
    coefficients = rng.normal(0, 1, (1, 3, 6)).round(3).astype(np.float32)
    corner, size = rng.uniform(0, 0.7, (4, 2)) * picture_px[::-1], rng.uniform(2, 40, (4, 2))
    limits = [*picture_px[::-1], *picture_px[::-1]]
    boxes = np.concatenate([corner, corner + size], 1).clip(0, limits).round(2).astype(np.float32)
    boxes[0] = [0, 0, *picture_px[::-1]]
    anchors = [4, 0, 5, 2]
    outputs = {MASK_PROTOTYPES: prototypes, MASK_COEFFICIENTS: coefficients}
    found = Found(Detections.from_boxes(boxes), np.array(anchors), outputs, placement)
    masks = YoloSegSegmenter()(np.zeros((*picture_px, 3), np.uint8), found, MaskOptions(0.1), Stopwatch())
    assert masks.areas_px()[0] > 0
    return {
        "name": f"{picture_px[1]} x {picture_px[0]} in {network_px[1]} x {network_px[0]}, cells divided by {factor}",
        "picture_px": list(picture_px),
        "spec": spec.model_dump(),
        "prototypes": rounded(prototypes),
        "coefficients": rounded(coefficients),
        "boxes": [rounded(box) for box in boxes],
        "anchors": anchors,
        "threshold": 0.1,
        "windows": masks.windows.tolist(),
        "rows": [rows(crop) for crop in masks.crops],
    }


def yolo_seg_cases(rng: np.random.Generator) -> list[Json]:
    return [
        yolo_seg_case(rng, (35, 35), (32, 32), 1),
        yolo_seg_case(rng, (26, 70), (32, 32), 2),
        yolo_seg_case(rng, (23, 25), (32, 64), 4),
        yolo_seg_case(rng, (60, 20), (32, 32), 4),
        yolo_seg_case(rng, (29, 25), (32, 64), 2),
    ]
