"""The implicit stream of DS2D2: what a frozen head predicts from the student's maps and from the teacher's.

Predictions of both come in, a scalar goes out, for dense heads (RetinaNet, YOLO). A teacher without a detection head,
such as a ViT, has no implicit stream.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from edgekd.losses.logits import quality_focal


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
