"""The logit loss L_kl: student and teacher class logits in, one scalar out.

`softmax_kl` is for heads whose classes exclude each other; YOLO's are independent (sigmoid), so `binary_kl` is the
default of a recipe and `softmax_kl` the plain formula by name.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """T^2 KL(p_T || p_S) over exclusive classes, averaged over anchors (Hinton et al. 2015).

    T^2 keeps the size of the gradient. Arguments and result as in `binary_kl`.
    """
    log_student = F.log_softmax(student.float() / temperature, dim=-1)
    log_teacher = F.log_softmax(teacher.float() / temperature, dim=-1)
    per_anchor = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * _weighted_mean(per_anchor, weight)


def binary_kl(student: Tensor, teacher: Tensor, temperature: float = 1.0, weight: Tensor | None = None) -> Tensor:
    """T^2 KL between independent Bernoullis, summed over classes, averaged over anchors.

    Args:
        student: logits (..., n_classes).
        teacher: logits of the same shape.
        temperature: T, dividing both logits.
        weight: importance of each anchor (...), by default 1; the result is divided by its sum.

    Returns:
        A float32 scalar, 0 where the two agree.
    """
    soft_student, soft_teacher = student.float() / temperature, teacher.float() / temperature
    probability = soft_teacher.sigmoid()
    cross_entropy = F.binary_cross_entropy_with_logits(soft_student, probability, reduction="none")
    entropy = F.binary_cross_entropy_with_logits(soft_teacher, probability, reduction="none")
    per_anchor = (cross_entropy - entropy).sum(dim=-1)
    return temperature**2 * _weighted_mean(per_anchor, weight)


def _weighted_mean(per_anchor: Tensor, weight: Tensor | None) -> Tensor:
    importance = torch.ones_like(per_anchor) if weight is None else weight.float()
    return (per_anchor * importance).sum() / importance.sum().clamp(min=1e-9)


def quality_focal(student: Tensor, teacher: Tensor, beta: float = 1.0) -> Tensor:
    """|sigmoid(s) - sigmoid(t)|^beta BCE(s, sigmoid(t)), elementwise over logits of one shape, float32.

    The classification term of DS2D2's implicit stream (KD-QFL, after Li et al., NeurIPS 2020); beta = 1 there.
    """
    target = teacher.float().sigmoid()
    gap = (student.float().sigmoid() - target).abs().pow(beta)
    return gap * F.binary_cross_entropy_with_logits(student.float(), target, reduction="none")
