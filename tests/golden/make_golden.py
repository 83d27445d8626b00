"""Write the golden vectors: what the Python runtime computes on small hand-made and seeded inputs.

Run it only when the runtime is meant to change its results: python tests/golden/make_golden.py. The recorded files are
read by tests/runtime/test_golden.py and by the C program edgekd/capi/tests/test_golden.cpp.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.model_set import DetectorHead, ImageInput
from edgekd.runtime.detect import DetectOptions, decode, suppress
from edgekd.runtime.preprocess import place, preprocess
from edgekd.runtime.segment import MaskOptions, masks_from_logits, remove_small_regions
from edgekd.types import Detections

FOLDER = Path(__file__).parent
Json = dict[str, Any]
LETTERBOX = ImageInput(
    height_px=12,
    width_px=16,
    place="centre",
    interpolation="linear",
    mean=(0, 0, 0),
    std=(255, 255, 255),
    pad=(114,) * 3,
)
SAM = ImageInput(
    height_px=16,
    width_px=16,
    place="top_left",
    interpolation="area",
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    pad=(123.675, 116.28, 103.53),
)
SMALLER_SIZES_PX = ((10, 16), (12, 16), (16, 10), (16, 12))
RECTANGULAR = (
    LETTERBOX.model_copy(update={"height_px": 16, "smaller_sizes_px": SMALLER_SIZES_PX}),
    SAM.model_copy(update={"smaller_sizes_px": SMALLER_SIZES_PX}),
)


def rounded(array: np.ndarray, digits: int = 6) -> list[float]:
    return [round(float(value), digits) for value in np.asarray(array).ravel()]


def rows(mask: np.ndarray) -> list[str]:
    return ["".join("1" if pixel else "0" for pixel in row) for row in mask]


def boxes_json(found: Detections) -> list[Json]:
    return [
        {
            "xyxy": rounded(found.xyxy[i]),
            "confidence": round(float(found.confidence[i]), 7),
            "class_id": int(found.class_id[i]),
        }
        for i in range(len(found))
    ]


def preprocess_cases(rng: np.random.Generator) -> list[Json]:
    sizes = {
        "one pixel": (1, 1),
        "one row": (1, 23),
        "one column": (19, 1),
        "as it is": (12, 16),
        "odd, larger": (5, 7),
        "odd, smaller": (29, 37),
        "half": (24, 32),
        "a third": (36, 48),
        "tall": (41, 13),
        "wide": (9, 50),
    }
    return sized_cases(rng, sizes, (LETTERBOX, SAM))


def rectangular_cases(rng: np.random.Generator) -> list[Json]:
    sizes = {
        "fits the flattest": (20, 32),
        "flatter than all": (7, 50),
        "takes the next": (30, 41),
        "too high for all": (33, 35),
        "tall": (41, 30),
        "narrow": (31, 6),
        "larger, flat": (5, 9),
    }
    return sized_cases(rng, sizes, RECTANGULAR)


def sized_cases(
    rng: np.random.Generator, sizes: dict[str, tuple[int, int]], specs: tuple[ImageInput, ImageInput]
) -> list[Json]:
    cases = []
    for name, (height, width) in sizes.items():
        picture = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for spec in specs:
            blob, placement = preprocess(picture, spec)
            cases.append(
                {
                    "name": f"{name}, {spec.interpolation}",
                    "picture_px": [height, width],
                    "pixels": picture.ravel().tolist(),
                    "spec": spec.model_dump(),
                    "scale": [placement.scale_x, placement.scale_y],
                    "offset_px": [placement.left_px, placement.top_px],
                    "input_px": list(placement.input_px),
                    "blob": rounded(blob),
                }
            )
    return cases


def head_case(name: str, rng: np.random.Generator, head: DetectorHead, options: DetectOptions, bias: float) -> Json:
    height, width = 64, 32
    n_anchors = sum((height // stride) * (width // stride) for stride in head.strides_px)
    box_logits = (
        rng.normal(0.7 if head.reg_max == 1 else 0, 1, (4 * head.reg_max, n_anchors)).round(3).astype(np.float32)
    )
    class_logits = rng.normal(bias, 2, (3, n_anchors)).round(3).astype(np.float32)
    if head.reg_max == 1:
        box_logits = np.abs(box_logits)
    decoded, _ = decode(box_logits, class_logits, head, (height, width), options)
    return {
        "name": name,
        "head": head.model_dump(),
        "input_px": [height, width],
        "box_logits": rounded(box_logits),
        "class_logits": rounded(class_logits),
        "confidence": options.confidence,
        "iou": options.iou,
        "max_boxes": options.max_boxes,
        "multi_label": options.multi_label,
        "decoded": boxes_json(decoded),
        "kept": boxes_json(decoded[suppress(decoded, options, head.end2end)]),
    }


def head_cases(rng: np.random.Generator) -> list[Json]:
    yolo = DetectorHead(strides_px=(8, 16, 32), reg_max=16, end2end=False)
    small = DetectorHead(strides_px=(8, 16, 32), reg_max=4, end2end=False)
    end2end = DetectorHead(strides_px=(8, 16), reg_max=1, end2end=True)
    return [
        head_case("reg_max 16", rng, yolo, DetectOptions(0.25, 0.5), -2),
        head_case("reg_max 4, every label", rng, small, DetectOptions(0.1, 0.6, multi_label=True), -2),
        head_case("at most five", rng, small, DetectOptions(0.05, 0.7, max_boxes=5), 0),
        head_case("end to end", rng, end2end, DetectOptions(0.3), -1),
        head_case("nothing", rng, small, DetectOptions(0.9), -30),
    ]


def suppression_cases(rng: np.random.Generator) -> list[Json]:
    corner = rng.uniform(0, 40, (40, 2))
    size = rng.uniform(1, 30, (40, 2))
    xyxy = np.concatenate([corner, corner + size], 1).round(2).astype(np.float32)
    xyxy[7] = xyxy[3]
    xyxy[8] = xyxy[3] + np.float32(0.5)
    confidence = np.sort(rng.uniform(0.1, 1, 40)).astype(np.float32)[::-1].copy()
    found = Detections(xyxy, confidence, rng.integers(0, 3, 40).astype(np.int32))
    cases = []
    for iou in (0.0, 0.3, 0.7, 1.0):
        options = DetectOptions(iou=iou, max_boxes=25)
        kept = found[suppress(found, options, end2end=False)]
        cases.append(
            {"name": f"iou {iou}", "iou": iou, "max_boxes": 25, "boxes": boxes_json(found), "kept": boxes_json(kept)}
        )
    return cases


def prompt_cases(rng: np.random.Generator) -> list[Json]:
    cases = []
    for height, width in ((1, 1), (11, 33), (480, 640), (999, 77)):
        boxes = rng.uniform(-20, 1000, (5, 4)).round(2).astype(np.float32)
        for spec in (LETTERBOX, SAM):
            placement = place((height, width), spec)
            cases.append(
                {
                    "name": f"{width} x {height}, {spec.place}",
                    "picture_px": [height, width],
                    "spec": spec.model_dump(),
                    "boxes": [rounded(box) for box in boxes],
                    "in_input": [rounded(box) for box in placement.to_input(boxes)],
                    "in_picture": [rounded(box) for box in placement.to_picture(boxes)],
                }
            )
    return cases


def mask_case(name: str, logits: np.ndarray, picture_px: tuple[int, int], options: MaskOptions) -> Json:
    logits = logits.round(3).astype(np.float32)
    masks = masks_from_logits(logits[None], np.ones(1, np.float32), place(picture_px, SAM), options)
    return {
        "name": name,
        "spec": SAM.model_dump(),
        "picture_px": list(picture_px),
        "grid": list(logits.shape),
        "logits": rounded(logits),
        "threshold": options.threshold,
        "min_region_px": options.min_region_px,
        "window": masks.windows[0].tolist(),
        "rows": rows(masks.crops[0]),
    }


def mask_cases(rng: np.random.Generator) -> list[Json]:
    inner = np.full((4, 4), -3.0)
    inner[1:3, 1:3] = 2.5
    single = np.full((4, 4), -1.0)
    single[2, 1] = 0.7
    noise = rng.normal(0, 2, (4, 4))
    disc = 2.5 - np.hypot(*(np.mgrid[0:4, 0:4] - 1.5)) * 2
    return [
        mask_case("inner, larger picture", inner, (37, 50), MaskOptions()),
        mask_case("inner, smaller picture", inner, (9, 5), MaskOptions()),
        mask_case("one cell", single, (30, 30), MaskOptions()),
        mask_case("one cell, threshold", single, (30, 30), MaskOptions(threshold=0.3)),
        mask_case("noise to the rim", noise, (41, 23), MaskOptions()),
        mask_case("noise, cleaned", noise, (41, 23), MaskOptions(min_region_px=40)),
        mask_case("nothing", np.full((4, 4), -1.0), (20, 30), MaskOptions()),
        mask_case("everything", np.full((4, 4), 1.0), (7, 31), MaskOptions()),
        mask_case("one pixel", inner, (1, 1), MaskOptions()),
        mask_case("a small object, cleaned", disc, (16, 16), MaskOptions(min_region_px=100)),
        mask_case(
            "a small object at the corner, cleaned",
            np.roll(disc, (-1, -1), (0, 1)),
            (16, 16),
            MaskOptions(min_region_px=100),
        ),
    ]


def cleanup_cases(rng: np.random.Generator) -> list[Json]:
    ring = np.zeros((9, 11), bool)
    ring[1:8, 1:10] = True
    ring[3:5, 4:6] = False
    ring[0, 10] = True
    diagonal = np.eye(8, dtype=bool)
    masks = {
        "ring with a hole": (ring, 5),
        "small hole stays": (ring, 3),
        "diagonal is one island": (diagonal, 8),
        "only small islands": (np.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 0, 0]], bool), 50),
        "noise": (rng.random((20, 24)) < 0.45, 6),
        "dense noise": (rng.random((20, 24)) < 0.7, 12),
        "empty": (np.zeros((4, 5), bool), 9),
        "full": (np.ones((4, 5), bool), 9),
    }
    return [
        {"name": name, "rows": rows(mask), "min_region_px": limit, "cleaned": rows(remove_small_regions(mask, limit))}
        for name, (mask, limit) in masks.items()
    ]


def main() -> None:
    rng = np.random.default_rng(7)
    vectors = {
        "preprocess": preprocess_cases(rng),
        "head": head_cases(rng),
        "suppression": suppression_cases(rng),
        "prompts": prompt_cases(rng),
        "masks": mask_cases(rng),
        "cleanup": cleanup_cases(rng),
    }
    vectors["preprocess"] += rectangular_cases(rng)
    from make_golden_kinds import crop_cases, turned_cases, yolo_seg_cases

    vectors |= {
        "crops": crop_cases(np.random.default_rng(10)),
        "turned": turned_cases(np.random.default_rng(8)),
        "yolo_seg": yolo_seg_cases(np.random.default_rng(9)),
    }
    for name, cases in vectors.items():
        lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
        (FOLDER / f"{name}.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
