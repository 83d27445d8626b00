"""The truth: Haar transform, inverse and weighted band loss in plain PyTorch, with no kernel behind them.

Every fast implementation is tested against these three functions. On a 2x2 block [[a, b], [c, d]]:

    approx     = (a + b + c + d) / 2        horizontal = (a + b - c - d) / 2
    vertical   = (a - b + c - d) / 2        diagonal   = (a - b - c + d) / 2

These are PyWavelets' cA, cH, cV, cD of `pywt.dwt2(x, "haar")`. The 4x4 matrix is symmetric and orthogonal, hence its
own inverse. Arithmetic is float32 for float16 and bfloat16 inputs and the input's own precision otherwise.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class HaarBands(NamedTuple):
    """The four bands of one Haar level, each (N, C, ceil(H/2), ceil(W/2)), in the order of PyWavelets."""

    approx: Tensor
    horizontal: Tensor
    vertical: Tensor
    diagonal: Tensor


class BandWeights(NamedTuple):
    """weight_low and weight_high of the loss: each multiplies a mean over the cells of its band or bands."""

    low: float
    high: float

    def per_cell(self, shape: Sequence[int]) -> tuple[float, float]:
        """Return what multiplies one squared coefficient of a student (N, C, H, W), so that sums become means."""
        n, c, height, width = shape
        n_cells = n * c * ((height + 1) // 2) * ((width + 1) // 2)
        return self.low / n_cells, self.high / (3 * n_cells)


def haar_dwt2_ref(x: Tensor, mode: str = "zero") -> HaarBands:
    """Transform x (N, C, H, W); an odd size gets one more row or column, zero or (other modes) the last one again."""
    height, width = x.shape[-2:]
    pad = (0, width % 2, 0, height % 2)
    wide = _at_least_float32(x)
    wide = F.pad(wide, pad) if mode == "zero" else F.pad(wide, pad, mode="replicate")
    a, b = wide[..., 0::2, 0::2], wide[..., 0::2, 1::2]
    c, d = wide[..., 1::2, 0::2], wide[..., 1::2, 1::2]
    return HaarBands(*(band.to(x.dtype) for band in _butterfly(a, b, c, d)))


def haar_idwt2_ref(bands: HaarBands, size: tuple[int, int] | None = None) -> Tensor:
    """Invert the transform: (N, C, H, W) from four (N, C, h, w), cropped to size = (H, W), by default (2h, 2w)."""
    corners = _butterfly(*(_at_least_float32(band) for band in bands))
    n, c, h, w = bands.approx.shape
    height, width = size or (2 * h, 2 * w)
    blocks = torch.stack(corners, dim=-1).view(n, c, h, w, 2, 2)
    x = blocks.permute(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)
    return x[..., :height, :width].to(bands.approx.dtype)


def haar_weighted_mse_ref(
    student: Tensor, teacher: Tensor, weight_low: float, weight_high: float, cell_weight: Tensor | None = None
) -> Tensor:
    """Weighted squared distance of the bands of student and teacher (N, C, H, W), zero-padded when odd: a scalar.

    weight_low * mean(m * dcA^2) + weight_high * mean over the three detail bands of (m * d^2), with m = cell_weight
    (N, 1, ceil(H/2), ceil(W/2)) or 1: the explicit stream of DS2D2 (arXiv 2512.04413), in float32 or float64.
    """
    student_bands = haar_dwt2_ref(_at_least_float32(student))
    teacher_bands = haar_dwt2_ref(_at_least_float32(teacher))
    squares = [(s - t) ** 2 for s, t in zip(student_bands, teacher_bands, strict=True)]
    if cell_weight is not None:
        squares = [square * cell_weight for square in squares]
    low, *high = (square.mean() for square in squares)
    return weight_low * low + weight_high * torch.stack(high).mean()


def _butterfly(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pixels to bands and bands to pixels; the kernels add in this order too, so all return the same bits."""
    top, top_step, bottom, bottom_step = a + b, a - b, c + d, c - d
    return (top + bottom) / 2, (top - bottom) / 2, (top_step + bottom_step) / 2, (top_step - bottom_step) / 2


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def analysis(x: Tensor, replicate: bool) -> HaarBands:
    """Forward transform."""
    return haar_dwt2_ref(x, "symmetric" if replicate else "zero")


def synthesis(bands: Sequence[Tensor], height: int, width: int, replicate: bool) -> Tensor:
    """Adjoint of `analysis`: the cropped inverse; with replicate the pad's share goes to the last row and column."""
    x = haar_idwt2_ref(HaarBands(*bands))
    if replicate and height % 2:
        x[:, :, height - 1] += x[:, :, height]
    if replicate and width % 2:
        x[:, :, :, width - 1] += x[:, :, :, width]
    return x[..., :height, :width].contiguous()


def loss(
    student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Loss, and its gradient or an empty tensor."""
    value = haar_weighted_mse_ref(student, teacher, weights.low, weights.high, cell_weight)
    if not with_gradient:
        return value, student.new_empty(0)
    return value, loss_gradient(torch.ones_like(value), student, teacher, cell_weight, weights)


def loss_gradient(
    grad_output: Tensor, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights
) -> Tensor:
    """Gradient of the loss times grad_output: 2 * synthesis(weight * analysis(student - teacher))."""
    low, high = weights.per_cell(student.shape)
    error = student.to(grad_output.dtype) - teacher.to(grad_output.dtype)
    factor = grad_output if cell_weight is None else grad_output * cell_weight
    approx, *details = haar_dwt2_ref(error)
    scaled = [2 * low * factor * approx, *(2 * high * factor * band for band in details)]
    return synthesis(scaled, student.shape[2], student.shape[3], replicate=False).to(student.dtype)
