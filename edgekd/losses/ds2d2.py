"""DS2D2, dual-stream spectral decoupling distillation (Gao et al., TGRS 63, 2025; arXiv 2512.04413).

    L = L_det + w1 L_low + w2 L_high + w3 L_full + w4 L_hf

Explicit stream (L_low, L_high): the maps themselves, compared band by band after one Haar transform, every cell
weighted by DISW. Implicit stream (L_full, L_hf): what a frozen head predicts from both maps, in `implicit.py`.

Two readings of the published code are offered where it errs: `faithful` repeats it, `fixed` does what it means to do.
Maps and boxes come in, a scalar or a weight map goes out; no network is known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.losses.feature import align_grid
from edgekd.ops import haar_dwt2, haar_weighted_mse

Reading = Literal["fixed", "faithful"]


def band_grid(size: tuple[int, int]) -> tuple[int, int]:
    """Size of the Haar bands of a map of `size` = (h, w): half of it, rounded up."""
    return (size[0] + 1) // 2, (size[1] + 1) // 2


def disw(boxes: Tensor, picture: Tensor, n_pictures: int, grid: tuple[int, int], reading: Reading = "fixed") -> Tensor:
    """Density-independent scale weight: W = 1 + sum over the boxes that contain the cell of 1 / (cells of the box).

    Every object adds a mass of exactly 1, whatever its size, and overlapping objects add up; the background weighs 1.

    Args:
        boxes: xyxy (n, 4), as fractions of the picture (0..1); what lies outside is cut off.
        picture: index of each box's picture (n,), 0 .. n_pictures - 1.
        n_pictures: pictures in the batch.
        grid: (h, w), the size of the Haar bands.
        reading: `fixed` counts the cells the box touches, in float32; `faithful` counts one row and column more on the
            right and below and adds box by box in float16, as published: a box of more than 2048 cells weighs nothing,
            and one of 2025 cells twice what it should.

    Returns:
        (n_pictures, 1, h, w) float32, at least 1, without gradient.
    """
    height, width = grid
    top_left, bottom_right = _cells(boxes, grid, reading)
    span = bottom_right - top_left
    share = 1.0 / (span[:, 0] * span[:, 1]).double()
    if reading == "faithful":
        return _added_in_float16(top_left, bottom_right, share, picture.long(), (n_pictures, height, width))
    # A box is four corners of a 2-D difference array; two cumulative sums fill it. float64 keeps the sums exact enough.
    corners = torch.zeros(n_pictures, height + 1, width + 1, dtype=torch.float64, device=boxes.device)
    index = picture.long()
    for y, x, sign in (
        (top_left[:, 1], top_left[:, 0], 1.0),
        (top_left[:, 1], bottom_right[:, 0], -1.0),
        (bottom_right[:, 1], top_left[:, 0], -1.0),
        (bottom_right[:, 1], bottom_right[:, 0], 1.0),
    ):
        corners.index_put_((index, y, x), sign * share, accumulate=True)
    mass = corners.cumsum(1).cumsum(2)[:, None, :height, :width]
    return (1.0 + mass.clamp(min=0)).float()


def _added_in_float16(
    top_left: Tensor, bottom_right: Tensor, share: Tensor, picture: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """The published loop: every box is added to a float16 map, which rounds after each."""
    weight = torch.ones(shape[0], 1, shape[1], shape[2], dtype=torch.float16)
    rows = zip(top_left.tolist(), bottom_right.tolist(), share.tolist(), picture.tolist(), strict=True)
    for (x1, y1), (x2, y2), each, index in rows:
        weight[index, 0, y1:y2, x1:x2] += each
    return weight.float().to(share.device)


def _cells(boxes: Tensor, grid: tuple[int, int], reading: Reading) -> tuple[Tensor, Tensor]:
    """First cell and one past the last cell of each box as (x, y) pairs (n, 2), int64, at least one cell each."""
    size = boxes.new_tensor([grid[1], grid[0]], dtype=torch.float64)
    scaled = boxes.detach().double().view(-1, 2, 2) * size
    first = scaled[:, 0].floor().clamp(min=0).minimum(size - 1)
    past = scaled[:, 1].ceil() + (1.0 if reading == "faithful" else 0.0)
    return first.long(), past.maximum(first + 1).minimum(size).long()


def explicit_loss(
    students: Sequence[Tensor],
    teachers: Sequence[Tensor],
    weight_low: float,
    weight_high: float,
    cell_weights: Sequence[Tensor | None],
) -> Tensor:
    """Explicit stream: sum over levels of weight_low L_low + weight_high L_high, through the fused op.

    L_low = mean((cA_s - cA_t)^2 W), L_high = mean over the three detail bands of ((cX_s - cX_t)^2 W). With W = 1 and
    weight_high = 3 weight_low this is 4 weight_low times the plain mean squared error (even sizes).

    Args:
        students: projected student maps, one (N, C_l, H_l, W_l) a level.
        teachers: teacher maps with the same channels, resampled to the student's grid.
        weight_low: w1.
        weight_high: w2.
        cell_weights: W of each level on its band grid (N, 1, ceil(H/2), ceil(W/2)), or None for 1.
    """
    losses = [
        haar_weighted_mse(s, align_grid(t, (s.shape[2], s.shape[3])), weight_low, weight_high, w)
        for s, t, w in zip(students, teachers, cell_weights, strict=True)
    ]
    return torch.stack(losses).sum()


def explicit_fft_loss(
    students: Sequence[Tensor], teachers: Sequence[Tensor], weight_low: float, weight_high: float
) -> Tensor:
    """The explicit stream with a Fourier split in place of Haar, for the ablation: frequencies have no place, so W = 1.

    Low is the central half of the band in each direction (|f| <= 1/4 cycle per cell), high the rest; both are means
    over all N C H W coefficients of the orthonormal transform, so the two sum up to the mean squared error (Parseval).
    """
    total = students[0].new_zeros((), dtype=torch.float32)
    for student, teacher in zip(students, teachers, strict=True):
        height, width = student.shape[2], student.shape[3]
        gap = student.float() - align_grid(teacher, (height, width)).float()
        power = torch.fft.fft2(gap, norm="ortho").abs().square()
        rows = torch.fft.fftfreq(height, device=gap.device).abs() <= 0.25
        columns = torch.fft.fftfreq(width, device=gap.device).abs() <= 0.25
        is_low = rows[:, None] & columns[None, :]
        total = total + weight_low * (power * is_low).mean() + weight_high * (power * ~is_low).mean()
    return total


def high_frequency(maps: Tensor) -> Tensor:
    """What the high-frequency amplifier sees: the three detail bands summed and resampled, (N, C, H, W) -> the same.

    On a 2x2 block a b / c d the sum is (3a - b - c - d) / 2; signed bands may cancel, as in the published code.
    """
    bands = haar_dwt2(maps)
    detail = bands.horizontal + bands.vertical + bands.diagonal
    size = (maps.shape[2], maps.shape[3])
    return F.interpolate(detail, size=size, mode="bilinear", align_corners=False).to(maps.dtype)
