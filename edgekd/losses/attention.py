"""The attention loss L_att: where student and teacher look, whatever their channels; maps in, one scalar out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.losses.feature import align_grid

AttentionDistance = Callable[[Tensor, Tensor], Tensor]


def spatial_attention(maps: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Channel energy as a distribution over positions: (N, C, H, W) -> (N, 1, H, W), float32, sum 1 per picture.

    A(i, j) = sum_c F(c, i, j)^2 / sum_{c, i, j} F^2, the attention map of Zagoruyko and Komodakis (ICLR 2017, eq. 1)
    normalised to sum 1. A map of zeros has no attention anywhere.
    """
    energy = maps.float().square().sum(dim=1, keepdim=True)
    return energy / energy.sum(dim=(2, 3), keepdim=True).clamp(min=epsilon)


def squared_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """||A_S - A_T||^2 with A = E / ||E||_2, E the channel energy (N, 1, H, W): (N,), 0 to 2.

    The normalisation of Zagoruyko and Komodakis (eq. 2), which leaves the size of the grid out of the number.
    """
    ours, theirs = (F.normalize(energy.flatten(1), dim=1, eps=1e-12) for energy in (student, teacher))
    return (ours - theirs).square().sum(dim=1)


def total_variation(student: Tensor, teacher: Tensor) -> Tensor:
    """1/2 sum_ij |A_S - A_T| of two distributions (N, 1, H, W): (N,), 0 to 1."""
    return 0.5 * (student - teacher).abs().sum(dim=(1, 2, 3))


ATTENTION_DISTANCES: dict[str, AttentionDistance] = {"squared": squared_distance, "total_variation": total_variation}


def attention_loss(
    students: Sequence[Tensor], teachers: Sequence[Tensor], distance: AttentionDistance = squared_distance
) -> Tensor:
    """L_att = sum over levels of the distance of both attentions, mean over pictures.

    The teacher's maps may have any channels and any grid: they are resampled to the student's before the energy.

    Args:
        students: projected student maps P(S), one (N, C_l, H_l, W_l) a level.
        teachers: teacher maps, one a level.
        distance: `squared_distance` or `total_variation`.
    """
    distances = [
        distance(spatial_attention(s), spatial_attention(align_grid(t, (s.shape[2], s.shape[3]))))
        for s, t in zip(students, teachers, strict=True)
    ]
    return torch.stack([each.mean() for each in distances]).sum()
