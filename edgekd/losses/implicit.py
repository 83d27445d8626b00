"""The implicit stream of DS2D2: what a frozen head predicts from the student's maps and from the teacher's.

Predictions of both come in, a scalar goes out. One form for dense heads (RetinaNet, YOLO), one for region heads (Faster
R-CNN). A teacher without a detection head, such as a ViT, has no implicit stream.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from edgekd.losses.ds2d2 import Reading
from edgekd.losses.logits import quality_focal

ROI_TEMPERATURE = 3.0
ROI_CLASS_WEIGHT = 0.5


def decode_distances(box_logits: Tensor, anchors: Tensor, strides_px: Tensor) -> Tensor:
    """Boxes of an anchor-free head: expected distances to the four sides, in cells, from each anchor point.

    Args:
        box_logits: (N, 4 R, A) logits of the distance distributions (DFL), sides left, top, right, bottom; R = 1 means
            plain distances.
        anchors: anchor points (A, 2) in cells of their level, x then y.
        strides_px: pixels per cell of each anchor (A,).

    Returns:
        xyxy (N, A, 4) float32 in input pixels.
    """
    n_pictures, channels, n_anchors = box_logits.shape
    bins = channels // 4
    logits = box_logits.float().view(n_pictures, 4, bins, n_anchors)
    if bins == 1:
        distances = logits[:, :, 0]
    else:
        steps = torch.arange(bins, dtype=torch.float32, device=box_logits.device)
        distances = torch.einsum("nsba,b->nsa", logits.softmax(dim=2), steps)
    left_top, right_bottom = distances.transpose(1, 2).chunk(2, dim=2)
    return torch.cat((anchors - left_top, anchors + right_bottom), dim=2) * strides_px[:, None]


def dense_implicit_loss(
    student_logits: Tensor, teacher_logits: Tensor, student_boxes: Tensor, teacher_boxes: Tensor
) -> Tensor:
    """Dense heads: KD-QFL of the classes plus GIoU of the boxes, weighted by the teacher's confidence.

    With q = sigmoid(max over classes of the teacher's logits) of each anchor:
    L = [sum |p_s - p_t| BCE(s, p_t) + sum q (1 - GIoU(b_s, b_t))] / sum q. The published code divides by the number of
    positive anchors; sum q is the number that the teacher believes in, and needs no assignment of labels (TAL).

    Args:
        student_logits: class logits (n, n_classes) of the frozen head on the student's maps.
        teacher_logits: the same on the teacher's maps.
        student_boxes: decoded xyxy (n, 4) of the frozen head on the student's maps.
        teacher_boxes: the same on the teacher's maps.
    """
    confidence = teacher_logits.detach().float().amax(dim=-1).sigmoid()
    class_term = quality_focal(student_logits, teacher_logits.detach()).sum()
    gap = generalized_box_iou_loss(student_boxes.float(), teacher_boxes.detach().float(), reduction="none")
    return (class_term + (confidence * gap).sum()) / confidence.sum().clamp(min=1.0)


def angle_implicit_loss(student_angles: Tensor, teacher_angles: Tensor, confidence: Tensor) -> Tensor:
    """Oriented heads add the turn: mean of (1 - cos 2(a_s - a_t)) / 2 weighted by confidence; three tensors (n,).

    The double angle makes a box turned by 180 degrees the same box.
    """
    gap = 0.5 * (1.0 - torch.cos(2.0 * (student_angles.float() - teacher_angles.detach().float())))
    return (confidence * gap).sum() / confidence.sum().clamp(min=1.0)


def region_implicit_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    student_deltas: Tensor,
    teacher_deltas: Tensor,
    background: int,
    reading: Reading = "fixed",
) -> Tensor:
    """Region heads: 0.5 T^2 KL(p_T || p_S) at T = 3, plus L1 on the box deltas of the teacher's best class.

    Args:
        student_logits: (n, n_classes + 1) of the frozen region head on the student's regions.
        teacher_logits: the same on the teacher's.
        student_deltas: (n, n_foreground, 4) box deltas, the classes as in the logits, without background.
        teacher_deltas: the same on the teacher's.
        background: column of the background class (torchvision 0, mmdetection the last).
        reading: `faithful` multiplies the class term by n, as the published code does by passing the average factor
            where the weight is expected.

    Returns:
        A float32 scalar.
    """
    log_student = F.log_softmax(student_logits.float() / ROI_TEMPERATURE, dim=1)
    soft_teacher = F.softmax(teacher_logits.detach().float() / ROI_TEMPERATURE, dim=1)
    per_region = F.kl_div(log_student, soft_teacher, reduction="none").sum(dim=1)
    class_term = ROI_CLASS_WEIGHT * ROI_TEMPERATURE**2 * per_region.mean()
    if reading == "faithful":
        class_term = class_term * student_logits.shape[0]

    probability = F.softmax(teacher_logits.detach().float(), dim=1)
    foreground = torch.cat((probability[:, :background], probability[:, background:][:, 1:]), dim=1)
    weight, best = foreground.max(dim=1)
    rows = torch.arange(best.shape[0], device=best.device)
    gap = (student_deltas[rows, best].float() - teacher_deltas[rows, best].detach().float()).abs().sum(dim=1)
    return class_term + (weight * gap).sum() / (4.0 * weight.sum()).clamp(min=1e-9)
