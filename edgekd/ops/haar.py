"""The public Haar ops: checked arguments in, bands, feature maps or a scalar loss out.

float16 and bfloat16 maps are computed in float32 and rounded once, so autocast changes nothing here. `approx` is twice
the mean of its four pixels: in float16 it overflows beyond |x| = 32752. Infinities and NaN go through and are never
replaced, so that a gradient scaler still sees them.
"""

import torch
from torch import Tensor

from edgekd.ops import _autograd, _checks
from edgekd.ops._library import loss_dtype
from edgekd.ops._reference import HaarBands, haar_weighted_mse_ref
from edgekd.ops.fold import dwt2_as_convolution, idwt2_as_convolution


def haar_dwt2(x: Tensor, mode: str = "zero", backend: str | None = None) -> HaarBands:
    """One level of the orthonormal Haar transform: x (N, C, H, W) -> four bands (N, C, ceil(H/2), ceil(W/2)).

    mode says what stands beyond an odd edge, as PyWavelets defines it: "zero", or the last row or column again for
    "symmetric" and "periodization", which are one and the same for this filter. Raises TypeError or ValueError.
    """
    _checks.check_feature_map("x", x)
    _checks.check_mode(mode)
    if _is_exporting():
        return dwt2_as_convolution(x, mode)
    return _autograd.analysis(x, mode != "zero", backend or "")


def haar_idwt2(bands: HaarBands, size: tuple[int, int] | None = None, backend: str | None = None) -> Tensor:
    """Inverse of haar_dwt2 in every mode: four bands (N, C, h, w) -> x (N, C, H, W).

    size = (H, W) crops an odd original, by default it is (2h, 2w). Raises TypeError or ValueError.
    """
    _checks.check_bands(bands)
    h, w = bands[0].shape[2:]
    if size is not None:
        _checks.check_size(size, (h, w))
    height, width = size or (2 * h, 2 * w)
    if _is_exporting():
        return idwt2_as_convolution(HaarBands(*bands))[..., :height, :width]
    return _autograd.synthesis(list(bands), height, width, False, backend or "")


def haar_weighted_mse(
    student: Tensor,
    teacher: Tensor,
    weight_low: float,
    weight_high: float,
    cell_weight: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Weighted squared distance of the Haar bands of two (N, C, H, W) maps: a scalar, float32 (float64 for float64).

    weight_low * mean(m * dcA^2) + weight_high * mean over the three detail bands of (m * d^2), with m = cell_weight
    (N, 1, ceil(H/2), ceil(W/2)) or 1: the explicit stream of DS2D2 (arXiv 2512.04413). Odd sizes are zero-padded.
    Maps of two dtypes are computed in the wider one. Differentiable in student and teacher, twice as well; cell_weight
    is a constant. Raises TypeError or ValueError.
    """
    _checks.check_pair(student, teacher)
    _checks.check_weight("weight_low", weight_low)
    _checks.check_weight("weight_high", weight_high)
    _checks.check_cell_weight(cell_weight, student)
    if _is_exporting():
        return haar_weighted_mse_ref(student, teacher, weight_low, weight_high, cell_weight)
    if student.dtype != teacher.dtype:
        dtype = torch.promote_types(student.dtype, teacher.dtype)
        student, teacher = student.to(dtype), teacher.to(dtype)
    if cell_weight is not None:
        cell_weight = cell_weight.to(loss_dtype(student)).contiguous()
    with_gradient = _takes_gradient_in_forward(student, teacher)
    weights = [float(weight_low), float(weight_high)]
    return _autograd.loss(student, teacher, cell_weight, weights, with_gradient, backend or "")


def _takes_gradient_in_forward(student: Tensor, teacher: Tensor) -> bool:
    """Say whether one pass makes loss and gradient (3 instead of 5 maps of traffic when backward's factor is 1).

    Only on the CPU, where backward may look at its factor without stalling a device, and never in float16, whose
    range ends above the gradient of a mean (half of it would be flushed to zero before the scaler's factor arrives).
    """
    wanted: bool = torch.is_grad_enabled() and (student.requires_grad or teacher.requires_grad)
    return wanted and bool(student.device.type == "cpu" and student.dtype != torch.float16)


def _is_exporting() -> bool:
    """Say whether a graph for another runtime is made: by torch.export, or by a trace for ONNX."""
    if torch.compiler.is_compiling():  # also where nothing compiles this is asked, so the slow questions come second
        return bool(torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export())
    return bool(torch.jit.is_tracing() and torch.onnx.is_in_onnx_export())
