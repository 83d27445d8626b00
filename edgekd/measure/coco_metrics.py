"""Average precision as COCO defines it, computed by faster-coco-eval; labels and scored detections go in.

An object is small below 32 x 32 px, large above 96 x 96 px, of its mask's area (COCO's own limits).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture
from edgekd.data.rle import coco_masks
from edgekd.errors import BackendUnavailable
from edgekd.runtime.results.regions import mask_rle
from edgekd.types import BoolArray, Float32Array, Int32Array, Masks

MEDIUM_FROM_PX, LARGE_FROM_PX = 32**2, 96**2
MAX_BOXES = 100
"""Detections a picture that COCO's metric looks at."""

Json = dict[str, Any]
_NAMES = {
    "ap": "AP_all",
    "ap50": "AP_50",
    "ap75": "AP_75",
    "ap_small": "AP_small",
    "ap_medium": "AP_medium",
    "ap_large": "AP_large",
    "ar100": "AR_third",
}


def coco_labels(pictures: Sequence[LabelledPicture], class_of: Int32Array) -> Json:
    """Write labels as a COCO dataset; picture i has id i + 1.

    Args:
        pictures: labels.
        class_of: (n_set_classes,) category id of each class of the set.
    """
    annotations: list[Json] = []
    for image_id, picture in enumerate(pictures, 1):
        for index in range(len(picture)):
            left, top, right, bottom = (float(value) for value in picture.xyxy[index])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(class_of[picture.class_id[index]]),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(picture.area_px[index]),
                    "iscrowd": int(picture.crowd[index]),
                    "segmentation": picture.segmentations[index] or [[left, top, right, top, right, bottom]],
                }
            )
    images = [
        {"id": i, "file_name": p.path.name, "height": p.size_px[0], "width": p.size_px[1]}
        for i, p in enumerate(pictures, 1)
    ]
    categories = [{"id": int(c), "name": str(c)} for c in sorted({int(c) for c in class_of})]
    return {"images": images, "annotations": annotations, "categories": categories}


def average_precision(labels: Json, detections: list[Json], kind: Literal["bbox", "segm"]) -> dict[str, float]:
    """Compute AP (IoU 0.50 to 0.95), AP50, AP75, AP by object size, and recall with 100 boxes, all 0..1.

    Args:
        labels: from `coco_labels`.
        detections: COCO results: image_id, category_id, score, bbox or segmentation.
        kind: what overlaps.

    Returns:
        `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar100`; a size without an object has no entry.
    """
    return overall(evaluated(labels, detections, kind))


def evaluated(labels: Json, detections: list[Json], kind: Literal["bbox", "segm"], max_boxes: int = MAX_BOXES) -> Any:
    """Run the evaluator; arguments as for `average_precision`. Other than `MAX_BOXES` detections are not COCO's AP."""
    coco, evaluator_of = library()
    truth = coco(labels, use_deepcopy=True)
    evaluator = evaluator_of(truth, truth.loadRes(detections), kind)
    evaluator.params.maxDets = [1, 10, max_boxes]
    evaluator.run()
    return evaluator


def overall(evaluator: Any) -> dict[str, float]:
    """Return the metrics of `average_precision`; `ar100` is left out where another number of boxes was taken."""
    stats = evaluator.stats_as_dict
    return {name: float(stats[key]) for name, key in _NAMES.items() if stats.get(key, -1) >= 0}


def by_class(evaluator: Any) -> dict[int, float]:
    """Return AP (IoU 0.50 to 0.95, all sizes, 100 boxes), 0..1, by category; one without an object has no entry."""
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]  # IoU, recall, category
    found = {}
    for index, category in enumerate(evaluator.params.catIds):
        values = precision[:, :, index]
        if (values > -1).any():
            found[int(category)] = float(values[values > -1].mean())
    return found


def encode_masks(masks: Masks) -> list[Json]:
    """Write masks as COCO run lengths."""
    return [mask_rle(masks, index) for index in range(len(masks))]


def encode_labels(picture: LabelledPicture) -> list[Json]:
    """Write a picture's label masks as COCO run lengths; every object must have one."""
    rle, encoded = coco_masks(), []
    for mask in picture.segmentations:
        if isinstance(mask, list):
            encoded.append(rle.merge(rle.frPyObjects(mask, *picture.size_px)))
        elif isinstance(mask, dict):
            encoded.append(rle.frPyObjects(mask, *picture.size_px) if isinstance(mask["counts"], list) else mask)
    return encoded


def mask_ious(found: Sequence[Json], truth: Sequence[Json]) -> NDArray[np.float64]:
    """Return the IoU of mask i with label i: (n,)."""
    rle = coco_masks()
    pairs = zip(found, truth, strict=True)
    return np.array([float(np.asarray(rle.iou([a], [b], [0])).item()) for a, b in pairs], np.float64)


def iou_by_size(ious: NDArray[np.float64], area_px: NDArray[np.float64]) -> dict[str, float]:
    """Average IoUs over all objects and over small, medium and large ones; a size without an object has no entry."""
    parts: dict[str, BoolArray] = {
        "miou": np.ones(len(ious), np.bool_),
        "miou_small": area_px < MEDIUM_FROM_PX,
        "miou_medium": (area_px >= MEDIUM_FROM_PX) & (area_px < LARGE_FROM_PX),
        "miou_large": area_px >= LARGE_FROM_PX,
    }
    return {name: float(ious[rows].mean()) for name, rows in parts.items() if rows.any()}


def box_ious(a: Float32Array, b: Float32Array) -> NDArray[np.float64]:
    """Return the IoU of each of the (n, 4) boxes with each of the (m, 4): (n, m)."""
    a64, b64 = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(a64[..., 2:], b64[..., 2:]) - np.maximum(a64[..., :2], b64[..., :2])
    overlap = np.clip(sides, 0, None).prod(-1)
    areas = (a64[..., 2:] - a64[..., :2]).prod(-1) + (b64[..., 2:] - b64[..., :2]).prod(-1)
    return np.asarray(overlap / np.maximum(areas - overlap, 1e-9), np.float64)


def library() -> tuple[Any, Any]:
    """Return faster-coco-eval's data set and evaluator.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise BackendUnavailable(
            f"faster-coco-eval cannot be imported ({error}); install it with: pip install faster-coco-eval"
        ) from error
    return COCO, COCOeval_faster
