"""Raw head maps become boxes: threshold, float32 DFL decoding of the few anchors left, non-maximum suppression.

An oriented head adds an angle per anchor, and suppression compares turned boxes; see `edgekd.runtime.oriented`.

Legend: A anchors of P3, P4, P5 one after another, row by row; n boxes kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.graphs import ANGLE_LOGITS, BOX_LOGITS, CLASS_LOGITS
from edgekd.model_set import DetectorHead
from edgekd.runtime.engines import floats
from edgekd.runtime.oriented import boxes_of, corners_of, enclosing, suppress_turned, to_picture
from edgekd.runtime.preprocess import Placement
from edgekd.types import Detections, Float32Array

# More candidates than this never survive suppression in a useful way and cost quadratic time.
MAX_CANDIDATES = 10_000


@dataclass(frozen=True)
class DetectOptions:
    """How many and which boxes are kept.

    Attributes:
        confidence: lowest class probability, 0..1 exclusive.
        iou: boxes of one class that overlap more than this are one object, 0..1.
        max_boxes: at most this many a picture, the most confident.
        multi_label: an anchor may give one box for every class above `confidence`, as average precision is measured;
            otherwise only its best class counts.
        class_confidence: (n_classes) lowest probability of each class, instead of `confidence`; 1 leaves a class out.
            Empty: `confidence` for all.
    """

    confidence: float = 0.25
    iou: float = 0.7
    max_boxes: int = 300
    multi_label: bool = False
    class_confidence: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: a value is out of its range.
        """
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence is {self.confidence}, expected a number between 0 and 1; try 0.25")
        if not 0 <= self.iou <= 1:
            raise InputError(f"iou is {self.iou}, expected a number from 0 to 1; try 0.7")
        if self.max_boxes < 1:
            raise InputError(f"max_boxes is {self.max_boxes}, expected at least 1; try 300")
        if not all(0 < value <= 1 for value in self.class_confidence):
            raise InputError(f"class_confidence is {self.class_confidence}, expected numbers above 0 and up to 1")


@dataclass(frozen=True)
class Found:
    """Boxes in picture pixels and, where the detector found them, what it said of each; given boxes have no more.

    Attributes:
        detections: the boxes.
        anchor: (n,) index of the anchor that gave each box.
        outputs: all outputs of the detector, valid until it runs again.
        placement: of the picture in the detector's input.
    """

    detections: Detections
    anchor: NDArray[np.intp] | None = None
    outputs: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    placement: Placement | None = None


@lru_cache(maxsize=8)
def anchors(height_px: int, width_px: int, strides_px: tuple[int, ...]) -> tuple[Float32Array, Float32Array]:
    """Return the cell centres (A, 2), x then y, in cells, and the stride of each anchor (A,), in input pixels."""
    centres, strides = [], []
    for stride in strides_px:
        y, x = np.mgrid[0 : height_px // stride, 0 : width_px // stride].astype(np.float32) + 0.5
        centres.append(np.stack([x.ravel(), y.ravel()], 1))
        strides.append(np.full(x.size, stride, np.float32))
    return np.concatenate(centres), np.concatenate(strides)


def expected_distance(logits: Float32Array) -> Float32Array:
    """Decode a distance distribution: the softmax-weighted mean of its bins.

    Args:
        logits: (..., reg_max) float32.

    Returns:
        (...,) float32, distance in cells (Generalized Focal Loss, Li et al. 2020, eq. 4).
    """
    reg_max = logits.shape[-1]
    if reg_max == 1:
        return logits[..., 0]
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    bins = np.arange(reg_max, dtype=np.float32)
    return np.asarray((weights @ bins) / weights.sum(-1), np.float32)


def decode(
    box_logits: Float32Array,
    class_logits: Float32Array,
    head: DetectorHead,
    input_px: tuple[int, int],
    options: DetectOptions,
    angle_logits: Float32Array | None = None,
) -> tuple[Detections, NDArray[np.intp]]:
    """Turn raw head maps into boxes in input pixels, before suppression, most confident first.

    Args:
        box_logits: (4 * reg_max, A) float32, sides left, top, right, bottom.
        class_logits: (n_classes, A) float32.
        head: strides and bins.
        input_px: (height, width) of the network's input.
        options: threshold and labels per anchor.
        angle_logits: (1, A) float32 of an oriented head.

    Returns:
        The boxes, and the anchor that gave each of them.
    """
    limits = _logit_limits(options, len(class_logits))
    if options.multi_label:
        class_id, index = np.nonzero(class_logits > limits[:, None])
        logit = class_logits[class_id, index]
    else:
        logit = class_logits.max(0)
        index = np.nonzero(logit > limits.min())[0]
        class_id = class_logits[:, index].argmax(0)
        above = logit[index] > limits[class_id]
        index, class_id = index[above], class_id[above]
        logit = logit[index]
    order = np.argsort(-logit, kind="stable")[:MAX_CANDIDATES]
    index, logit, class_id = index[order], logit[order], class_id[order]
    centres, strides = anchors(*input_px, head.strides_px)
    sides = expected_distance(box_logits[:, index].reshape(4, head.reg_max, -1).transpose(2, 0, 1))
    confidence = (1 / (1 + np.exp(-logit.astype(np.float32)))).astype(np.float32)
    if angle_logits is not None:
        corners = _turned(centres[index], sides, _angles(angle_logits[0, index], head)) * strides[index, None, None]
        turned = corners.astype(np.float32)
        return Detections(enclosing(turned), confidence, class_id.astype(np.int32), turned), index
    xyxy = np.concatenate([centres[index] - sides[:, :2], centres[index] + sides[:, 2:]], 1) * strides[index, None]
    return Detections(xyxy.astype(np.float32), confidence, class_id.astype(np.int32)), index


def _angles(logits: Float32Array, head: DetectorHead) -> NDArray[np.float64]:
    """Angles in radians, (n,); those of a sigmoid are from -pi / 4 to 3 pi / 4, as Ultralytics defines them."""
    values = logits.astype(np.float64)
    return values if head.angle == "radians" else (1 / (1 + np.exp(-values)) - 0.25) * math.pi


def _turned(centres: Float32Array, sides: Float32Array, angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners (n, 4, 2) in cells; the distances from an anchor to the sides count along the turned axes."""
    before, behind = sides[:, :2].astype(np.float64), sides[:, 2:].astype(np.float64)
    x, y = ((behind - before) / 2).T
    cos, sin = np.cos(angles), np.sin(angles)
    centre = centres + np.stack([x * cos - y * sin, x * sin + y * cos], 1)
    size = np.maximum(before + behind, 0)
    return corners_of(np.concatenate([centre, size, angles[:, None]], 1))


def _logit_limits(options: DetectOptions, n_classes: int) -> NDArray[np.float64]:
    """The lowest logit of each class, infinite for a class that is left out."""
    lowest = options.class_confidence or (options.confidence,) * n_classes
    if len(lowest) != n_classes:
        raise InputError(f"class_confidence has {len(lowest)} numbers, expected one per class, {n_classes}")
    return np.array([math.inf if value == 1 else math.log(value / (1 - value)) for value in lowest])


def suppress(found: Detections, options: DetectOptions, end2end: bool) -> NDArray[np.intp]:
    """Return the rows of the most confident of the boxes of one class that overlap, at most `max_boxes`."""
    rows = np.arange(len(found))
    if not end2end and found.corners is not None:
        rows = suppress_turned(boxes_of(found.corners), found.class_id, options.iou)
    elif not end2end and len(found):
        corner, size = found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]
        boxes = np.concatenate([corner, size], 1).astype(np.float64)
        kept = cv2.dnn.NMSBoxesBatched(boxes, found.confidence, found.class_id, 0.0, options.iou)  # type: ignore[arg-type]
        rows = np.sort(np.asarray(kept, np.intp).ravel())
    return rows[: options.max_boxes]


def detect(
    outputs: Mapping[str, NDArray[np.generic]],
    head: DetectorHead,
    placement: Placement,
    options: DetectOptions,
) -> Found:
    """Turn one picture's detector outputs into boxes in picture pixels.

    Args:
        outputs: `box_logits` (1, 4 * reg_max, A), `class_logits` (1, n_classes, A), of an oriented head
            `angle_logits` (1, 1, A).
        head: how to decode them.
        placement: where the picture lay in the input.
        options: what to keep.

    Raises:
        BundleError: an output holds NaN or infinity.
    """
    box_logits, class_logits = floats(outputs, BOX_LOGITS)[0], floats(outputs, CLASS_LOGITS)[0]
    angle_logits = floats(outputs, ANGLE_LOGITS)[0] if head.is_oriented else None
    found, anchor = decode(box_logits, class_logits, head, placement.input_px, options, angle_logits)
    rows = suppress(found, options, head.end2end)
    return Found(_in_picture(found[rows], placement), anchor[rows], outputs, placement)


def _in_picture(found: Detections, placement: Placement) -> Detections:
    if found.corners is None:
        return replace(found, xyxy=placement.to_picture(found.xyxy))
    corners = to_picture(found.corners, placement)
    height, width = placement.picture_px
    xyxy = enclosing(corners).clip(0, np.array([width, height] * 2, np.float32))
    return replace(found, xyxy=xyxy, corners=corners)
