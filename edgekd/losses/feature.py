"""The feature loss L_feat: student and teacher maps of several levels in, one scalar out.

Every distance is a mean over positions, so a level counts the same whatever its size, and levels are weighted by w_l.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

from edgekd.errors import InputError

FeatureDistance = Callable[[Tensor, Tensor], Tensor]


def align_grid(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample maps (N, C, H, W) bilinearly to the grid `size` = (h, w), up or down; the same tensor if it fits."""
    if maps.shape[-2:] == size:
        return maps
    shrinks = maps.shape[-2] > size[0] and maps.shape[-1] > size[1]
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def mse_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two maps (N, C, H, W), in float32: 1/(NHWC) sum (s - t)^2."""
    return F.mse_loss(student.float(), teacher.float())


def squared_norm_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over positions of ||s - t||^2 along the channels of (N, C, H, W), in float32: C times `mse_distance`."""
    return student.shape[1] * mse_distance(student, teacher)


def cosine_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over positions of 1 - cos(s, t), the angle taken along the channels of (N, C, H, W), in float32."""
    return (1.0 - F.cosine_similarity(student.float(), teacher.float(), dim=1)).mean()


DISTANCES: dict[str, FeatureDistance] = {
    "cosine": cosine_distance,
    "mse": mse_distance,
    "squared_norm": squared_norm_distance,
}


def feature_loss(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    distance: FeatureDistance = cosine_distance,
    level_weights: Sequence[float] | None = None,
) -> Tensor:
    """L_feat = sum_l w_l d(s_l, t_l), the teacher resampled to the student's grid.

    Args:
        students: projected student maps, one (N, C_l, H_l, W_l) a level.
        teachers: teacher maps, one (N, C_l, h_l, w_l) a level.
        distance: one of `DISTANCES`.
        level_weights: w_l, by default 1 for every level.

    Raises:
        InputError: the numbers of levels or channels differ.
    """
    weights = [1.0] * len(students) if level_weights is None else list(level_weights)
    if not len(students) == len(teachers) == len(weights) or not students:
        raise InputError(
            f"{len(students)} student maps, {len(teachers)} teacher maps and {len(weights)} level weights were given; "
            "they must be as many, and at least one"
        )
    total = students[0].new_zeros((), dtype=students[0].float().dtype)
    for student, teacher, weight in zip(students, teachers, weights, strict=True):
        if student.shape[1] != teacher.shape[1]:
            raise InputError(
                f"the student's map has {student.shape[1]} channels and the teacher's {teacher.shape[1]}; "
                "project the student to the teacher's channels first"
            )
        total = total + weight * distance(student, align_grid(teacher, (student.shape[2], student.shape[3])))
    return total
