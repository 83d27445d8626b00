"""Average precision agrees with pycocotools, and with hand-computed cases."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekd.data.labels import LabelledPicture
from edgekd.measure import coco_metrics as coco
from edgekd.types import Masks


def random_pictures(n: int = 12) -> tuple[LabelledPicture, ...]:
    generator = np.random.default_rng(5)
    pictures = []
    for index in range(n):
        corner = generator.uniform(0, 200, (6, 2))
        xyxy = np.concatenate([corner, corner + generator.uniform(8, 150, (6, 2))], 1).astype(np.float32)
        rings = [[[b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3]]] for b in xyxy.tolist()]
        pictures.append(
            LabelledPicture(
                path=Path(f"{index}.jpg"),
                size_px=(360, 360),
                xyxy=xyxy,
                class_id=generator.integers(0, 3, 6).astype(np.int32),
                area_px=((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])).astype(np.float64),
                crowd=np.zeros(6, np.bool_),
                segmentations=tuple(rings),
            )
        )
    return tuple(pictures)


def random_detections(pictures: tuple[LabelledPicture, ...]) -> list[dict[str, Any]]:
    generator = np.random.default_rng(6)
    results = []
    for image_id, picture in enumerate(pictures, 1):
        for box, class_id in zip(picture.xyxy, picture.class_id, strict=True):
            for _ in range(2):
                left, top, right, bottom = (box + generator.normal(0, 6, 4)).tolist()
                xywh = [left, top, right - left, bottom - top]
                row = {"image_id": image_id, "category_id": int(class_id), "bbox": xywh}
                results.append({**row, "score": float(generator.random())})
    return results


def test_box_ap_agrees_with_pycocotools() -> None:
    pycocotools_coco = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    pictures = random_pictures()
    labels = coco.coco_labels(pictures, np.arange(3, dtype=np.int32))
    detections = random_detections(pictures)
    got = coco.average_precision(labels, [dict(row) for row in detections], "bbox")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycocotools_coco.COCO()
        truth.dataset = labels
        truth.createIndex()
        oracle = COCOeval(truth, truth.loadRes([dict(row) for row in detections]), "bbox")
        oracle.evaluate()
        oracle.accumulate()
        oracle.summarize()
    names = ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")
    assert 0.1 < got["ap"] < 0.9
    for name, expected in zip(names, oracle.stats[:6], strict=True):
        assert got[name] == pytest.approx(expected, abs=1e-9), name


def test_perfect_and_absent_detections() -> None:
    pictures = random_pictures(3)
    labels = coco.coco_labels(pictures, np.array([5, 6, 7], np.int32))
    perfect = [
        {key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in labels["annotations"]
    ]
    assert coco.average_precision(labels, perfect, "bbox")["ap"] == pytest.approx(1)
    assert coco.average_precision(labels, [], "bbox")["ap"] == 0


def test_mask_iou_of_shifted_squares_and_sizes() -> None:
    ring = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]
    one = np.array([[10, 10, 30, 30]], np.float32)
    picture = LabelledPicture(
        Path("a"), (64, 64), one, np.zeros(1, np.int32), np.array([400.0]), np.zeros(1, np.bool_), (ring,)
    )
    shifted = Masks((64, 64), np.array([[20, 10, 40, 30]], np.int32), (np.ones((20, 20), np.bool_),), np.ones(1))
    (iou,) = coco.mask_ious(coco.encode_masks(shifted), coco.encode_labels(picture))
    assert iou == pytest.approx(1 / 3)
    areas = np.array([400.0, 1024.0, 9216.0])
    by_size = coco.iou_by_size(np.array([0.2, 0.5, 0.8]), areas)
    assert by_size == {"miou": pytest.approx(0.5), "miou_small": 0.2, "miou_medium": 0.5, "miou_large": 0.8}
    assert coco.iou_by_size(np.array([0.2]), np.array([10.0])).keys() == {"miou", "miou_small"}


def test_box_iou() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(coco.box_ious(a, b), [[1 / 3, 0]])
