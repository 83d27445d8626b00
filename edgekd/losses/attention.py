"""The attention loss L_att: where student and teacher look, whatever their channels; maps in, one scalar out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.losses.feature import align_grid


def spatial_attention(maps: Tensor, epsilon: float = 1e-12) -> Tensor:
    """Channel energy as a distribution over positions: (N, C, H, W) -> (N, 1, H, W), float32, sum 1 per picture.

    A(i, j) = sum_c F(c, i, j)^2 / sum_{c, i, j} F^2, the attention map of Zagoruyko and Komodakis (ICLR 2017, eq. 1)
    normalised to sum 1. A map of zeros has no attention anywhere.
    """
    energy = maps.float().square().sum(dim=1, keepdim=True)
    return energy / energy.sum(dim=(2, 3), keepdim=True).clamp(min=epsilon)


def attention_loss(students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
    """L_att = sum over levels of the total variation distance 1/2 sum_ij |A_s - A_t|, mean over pictures; 0 to 1 each.

    The teacher's maps may have any channels and any grid: they are resampled to the student's before the energy.
    """
    distances = [
        0.5 * (spatial_attention(s) - spatial_attention(align_grid(t, (s.shape[2], s.shape[3])))).abs().sum((1, 2, 3))
        for s, t in zip(students, teachers, strict=True)
    ]
    return torch.stack([distance.mean() for distance in distances]).sum()
