"""Average precision of turned boxes: COCO's protocol by faster-coco-eval, with the exact IoU of two turned boxes.

Ultralytics' own validation compares boxes by ProbIoU instead, which is higher for the same two boxes where they are
small or far from square; DOTA's evaluation uses the exact IoU, as here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture
from edgekd.measure.coco_metrics import Json, library
from edgekd.runtime.oriented import boxes_of, turned_ious
from edgekd.types import Detections, Float32Array

CORNERS = "corners"
"""Key of a result, beside `bbox`, that holds the four corners."""


def label_corners(picture: LabelledPicture) -> Float32Array:
    """Return the corners of a picture's turned boxes: (n, 4, 2) float32."""
    corners = [picture.turned_corners(index) for index in range(len(picture))]
    return np.array(corners, np.float32).reshape(-1, 4, 2)


def with_corners(results: list[Json], found: Detections) -> list[Json]:
    """Return COCO results with the corners of their boxes."""
    assert found.corners is not None
    return [{**result, CORNERS: corners} for result, corners in zip(results, found.corners, strict=True)]


def evaluated_turned(labels: Json, pictures: Sequence[LabelledPicture], detections: list[Json], max_boxes: int) -> Any:
    """Run the evaluator on turned boxes.

    Args:
        labels: from `coco_labels`, of `pictures` in this order.
        pictures: the labelled pictures.
        detections: from `with_corners`.
        max_boxes: per picture.
    """
    coco, evaluator_of = library()
    truth = coco(labels, use_deepcopy=True)
    found = truth.loadRes([{name: value for name, value in one.items() if name != CORNERS} for one in detections])
    for one, result in zip(found.dataset["annotations"], detections, strict=True):
        one["area"] = float(boxes_of(result[CORNERS][None])[0, 2:4].prod())
    of_label = dict(enumerate(np.concatenate([np.zeros((0, 4, 2)), *map(label_corners, pictures)]), 1))
    of_result = dict(enumerate((one[CORNERS] for one in detections), 1))

    class Evaluator(evaluator_of):  # type: ignore[misc, valid-type]
        """The evaluator with another overlap; ids count labels and results from 1."""

        def computeIoU(self, imgId: int, catId: int) -> NDArray[np.float64] | list[float]:
            """Return (results by confidence, labels) of a picture and class; an empty list where either is missing."""
            gt, dt = (data.get_instances([imgId], [catId], True)[0][0] for data in (self.gt_dataset, self.dt_dataset))
            if not gt or not dt:
                return []
            order = np.argsort([-one["score"] for one in dt], kind="mergesort")[: self.params.maxDets[-1]]
            first = np.stack([of_result[int(dt[row]["id"])] for row in order])
            second = np.stack([of_label[int(one["id"])] for one in gt])
            return turned_ious(first, second)

    evaluator = Evaluator(truth, found, "bbox")
    evaluator.params.maxDets = [1, 10, max_boxes]
    evaluator.run()
    return evaluator
