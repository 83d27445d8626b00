"""The detection loss L_det = beta_cls L_cls + beta_obj L_obj + beta_box L_box: predictions and targets in, a scalar.

YOLO11 has no objectness output and spreads each box side over a distribution (DFL), so its L_det is Ultralytics' own
criterion, which maps onto the equation as

    beta_cls L_cls   ->  `cls` (0.5) x BCE of the class logits with task-aligned soft targets
    beta_box L_box   ->  `box` (7.5) x CIoU + `dfl` (1.5) x distribution focal loss
    beta_obj L_obj   ->  absent; `best_class_logit` turns the class logits into the score that takes its place

The functions below are that equation for every other detector, and what the tests measure the criterion against.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class DetectionWeights:
    """The three betas of L_det; defaults in the proportion of YOLOv5, the last YOLO with an objectness output."""

    beta_cls: float = 0.5
    beta_obj: float = 1.0
    beta_box: float = 0.05


def smooth_labels(targets: Tensor, epsilon: float) -> Tensor:
    """Move 0/1 targets (any shape) towards one half: t (1 - epsilon) + epsilon / 2."""
    return targets * (1.0 - epsilon) + 0.5 * epsilon


def classification_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """L_cls: mean binary cross entropy of class logits (n, n_classes) with 0..1 targets of the same shape."""
    return F.binary_cross_entropy_with_logits(logits.float(), smooth_labels(targets.float(), label_smoothing))


def objectness_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """L_obj: mean binary cross entropy of objectness logits (n,) with 0..1 targets (n,)."""
    return F.binary_cross_entropy_with_logits(logits.float(), targets.float())


def best_class_logit(class_logits: Tensor) -> Tensor:
    """The objectness of a head that has none: (n, n_classes) -> (n,), the logit of the best class."""
    return class_logits.amax(dim=-1)


def ciou(boxes: Tensor, targets: Tensor, epsilon: float = 1e-7) -> Tensor:
    """Complete IoU of paired boxes (Zheng et al., AAAI 2020, eq. 7-11): xyxy (n, 4) twice -> (n,), at most 1.

    CIoU = IoU - rho^2 / c^2 - alpha v, with rho the distance of the centres, c the diagonal of the enclosing box,
    v = 4 / pi^2 (atan(w_t / h_t) - atan(w / h))^2 and alpha = v / (1 - IoU + v), which carries no gradient.
    """
    boxes, targets = boxes.float(), targets.float()
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=epsilon)
    target_size = (targets[:, 2:] - targets[:, :2]).clamp(min=epsilon)
    overlap = torch.minimum(boxes[:, 2:], targets[:, 2:]) - torch.maximum(boxes[:, :2], targets[:, :2])
    intersection = overlap.clamp(min=0).prod(dim=1)
    iou = intersection / (size.prod(dim=1) + target_size.prod(dim=1) - intersection + epsilon)

    enclosing = torch.maximum(boxes[:, 2:], targets[:, 2:]) - torch.minimum(boxes[:, :2], targets[:, :2])
    centre_gap = (boxes[:, :2] + boxes[:, 2:] - targets[:, :2] - targets[:, 2:]) / 2
    distance = centre_gap.square().sum(dim=1) / (enclosing.square().sum(dim=1) + epsilon)

    angle_gap = torch.atan(target_size[:, 0] / target_size[:, 1]) - torch.atan(size[:, 0] / size[:, 1])
    v = 4.0 / math.pi**2 * angle_gap.square()
    alpha = (v / (1.0 - iou + v + epsilon)).detach()
    return iou - distance - alpha * v


def box_loss(boxes: Tensor, targets: Tensor) -> Tensor:
    """L_box: mean of 1 - CIoU over paired xyxy boxes (n, 4); 0 where there is no box."""
    if boxes.shape[0] == 0:
        return boxes.sum() * 0.0
    return (1.0 - ciou(boxes, targets)).mean()


def detection_loss(l_cls: Tensor, l_obj: Tensor, l_box: Tensor, weights: DetectionWeights | None = None) -> Tensor:
    """L_det = beta_cls L_cls + beta_obj L_obj + beta_box L_box, three scalars in, one out."""
    weights = weights or DetectionWeights()
    return weights.beta_cls * l_cls + weights.beta_obj * l_obj + weights.beta_box * l_box
