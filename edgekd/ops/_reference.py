"""The truth of `_ref` in the form of a `Kernels` module: any device and dtype, explicit adjoints, no autograd."""

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.ops._interface import BandWeights
from edgekd.ops._ref import HaarBands, haar_dwt2_ref, haar_idwt2_ref, haar_weighted_mse_ref


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
