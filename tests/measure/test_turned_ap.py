"""AP of turned boxes equals shapely's exact IoU in pycocotools' evaluator; labels that do not fit are refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.errors import DataError
from edgekd.measure.accuracy import EvaluateOptions, evaluate_chain
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.oriented import corners_of, enclosing
from edgekd.types import Detections, UInt8Array

SIZE = (240, 320)
NAMES = ("plane", "ship")


def picture_of(folder: Path, number: int, boxes: np.ndarray, turned: bool = True) -> LabelledPicture:
    path = folder / f"{number}.png"
    cv2.imwrite(str(path), np.full((*SIZE, 3), number, np.uint8))
    corners = corners_of(boxes)
    return LabelledPicture(
        path=path,
        size_px=SIZE,
        xyxy=enclosing(corners),
        class_id=(np.arange(len(boxes)) % 2).astype(np.int32),
        area_px=boxes[:, 2] * boxes[:, 3],
        crowd=np.zeros(len(boxes), np.bool_),
        segmentations=tuple([quad.ravel().tolist()] if turned else None for quad in corners),
        class_names=NAMES,
    )


def scattered(generator: np.random.Generator, n: int) -> np.ndarray:
    centre, size = generator.uniform(30, 210, (n, 2)), generator.uniform(8, 90, (n, 2))
    return np.concatenate([centre, size, generator.uniform(-0.7, 2.3, (n, 1))], 1)


class NoisyChain:
    """Finds the labelled boxes of a picture by its grey value, moved and turned, and some that are not there."""

    manifest = SimpleNamespace(pipeline=SimpleNamespace(class_names=NAMES, head=SimpleNamespace(is_oriented=True)))
    segmenter = SimpleNamespace(takes_boxes=True)

    def __init__(self, truth: dict[int, np.ndarray]) -> None:
        self.found = {number: self._look(number, boxes) for number, boxes in truth.items()}

    def _look(self, number: int, boxes: np.ndarray) -> Detections:
        generator = np.random.default_rng(number)
        noise = generator.normal(0, [2, 2, 4, 3, 0.08], boxes.shape)
        rows = np.concatenate([boxes + noise, boxes[::3] + 2 * noise[::3], scattered(generator, 4)])
        rows[:, 2:4] = np.maximum(rows[:, 2:4], 2)
        classes = np.concatenate([np.arange(len(boxes)), np.arange(len(boxes))[::3], generator.integers(0, 2, 4)]) % 2
        confidence = np.sort(generator.uniform(0.05, 1, len(rows)))[::-1]
        corners = corners_of(rows).astype(np.float32)
        return Detections(enclosing(corners), confidence.astype(np.float32), classes.astype(np.int32), corners)

    def detect(self, picture: UInt8Array, options: DetectOptions) -> Detections:
        return self.found[int(picture[0, 0, 0])]


@pytest.fixture
def truth() -> dict[int, np.ndarray]:
    generator = np.random.default_rng(0)
    return {number: scattered(generator, 3 + number) for number in range(1, 7)}


def reference_ap(labels: LabelledSet, chain: NoisyChain) -> tuple[float, float]:
    """COCO's AP and AP50 by pycocotools with the IoU of shapely's polygons."""
    shapely = pytest.importorskip("shapely")
    coco, evaluator = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    annotations, results, quads = [], [], {}
    for number, picture in enumerate(labels.pictures, 1):
        found = chain.found[number]
        for rows, corners, classes in (
            (annotations, np.array([picture.rings(i)[0] for i in range(len(picture))]), picture.class_id),
            (results, found.corners, found.class_id),
        ):
            for index, (quad, class_id) in enumerate(zip(corners, classes, strict=True)):
                score = {} if rows is annotations else {"score": float(found.confidence[index])}
                entry = {"image_id": number, "category_id": int(class_id), "bbox": [0, 0, 1, 1], "area": 1000, **score}
                rows.append(entry | {"iscrowd": 0, "id": len(rows) + 1})
                quads[rows is annotations, len(rows)] = shapely.Polygon(quad)
    base = coco.COCO()
    images = [{"id": number} for number in range(1, len(labels) + 1)]
    base.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 0}, {"id": 1}]}
    base.createIndex()

    class Evaluator(evaluator.COCOeval):
        def computeIoU(self, imgId: int, catId: int) -> np.ndarray:
            gt, dt = self._gts[imgId, catId], self._dts[imgId, catId]
            dt = sorted(dt, key=lambda one: -one["score"])
            a, b = [quads[False, one["id"]] for one in dt], [quads[True, one["id"]] for one in gt]
            return np.array([[p.intersection(q).area / p.union(q).area for q in b] for p in a]) if a and b else []

    run = Evaluator(base, base.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return float(run.stats[0]), float(run.stats[1])


def test_ap_equals_the_reference(tmp_path: Path, truth: dict[int, np.ndarray]) -> None:
    pytest.importorskip("faster_coco_eval")
    pictures = tuple(picture_of(tmp_path, number, boxes) for number, boxes in truth.items())
    labels, chain = LabelledSet(tmp_path, NAMES, pictures), NoisyChain(truth)
    metrics, scores = evaluate_chain(chain, labels, EvaluateOptions(segmenter=False))
    ap, ap50 = reference_ap(labels, chain)
    assert 0.1 < ap < ap50 < 0.95
    assert metrics["box"]["ap"] == pytest.approx(ap, abs=1e-3)
    assert metrics["box"]["ap50"] == pytest.approx(ap50, abs=1e-3)
    assert set(metrics["box_by_class"]) == set(NAMES) and metrics["mask"] == {}
    assert all(score.box_f1 is not None and 0 < score.box_f1 <= 1 for score in scores)


def test_upright_labels_are_refused_for_an_oriented_detector(tmp_path: Path, truth: dict[int, np.ndarray]) -> None:
    labels = LabelledSet(tmp_path, NAMES, (picture_of(tmp_path, 1, truth[1], turned=False),))
    with pytest.raises(DataError, match="upright box and the detector is oriented"):
        evaluate_chain(NoisyChain(truth), labels, EvaluateOptions(segmenter=False))


def test_outlines_of_four_corners_are_turned_boxes_and_others_stay_masks(tmp_path: Path) -> None:
    quads = picture_of(tmp_path, 1, np.array([[50, 50, 40, 20, 0.3]]))
    assert LabelledSet(tmp_path, NAMES, (quads,)).as_oriented().oriented
    outline = [[10.0, 10, 40, 12, 42, 30, 20, 35, 9, 20]]
    assert not LabelledSet(tmp_path, NAMES, (quads.take(np.array([0])),)).oriented
    from dataclasses import replace

    mixed = LabelledSet(tmp_path, NAMES, (replace(quads, segmentations=(outline,)),)).as_oriented()
    assert not mixed.oriented and mixed.has_masks
