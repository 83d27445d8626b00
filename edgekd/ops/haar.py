"""The public Haar ops: checked arguments in, bands, feature maps or a scalar loss out."""

from torch import Tensor

from edgekd.ops import _checks
from edgekd.ops._dispatch import resolve_backend
from edgekd.ops._ref import HaarBands, haar_dwt2_ref, haar_idwt2_ref, haar_weighted_mse_ref


def haar_dwt2(x: Tensor, mode: str = "zero", backend: str | None = None) -> HaarBands:
    """One level of the orthonormal Haar transform: x (N, C, H, W) -> four bands (N, C, ceil(H/2), ceil(W/2)).

    mode says what stands beyond an odd edge, as in PyWavelets: "zero", "symmetric" or "periodization".
    """
    _checks.check_feature_map("x", x)
    _checks.check_mode(mode)
    resolve_backend(x.device.type, x.dtype, backend)
    return haar_dwt2_ref(x, mode)


def haar_idwt2(bands: HaarBands, size: tuple[int, int] | None = None, backend: str | None = None) -> Tensor:
    """Inverse of haar_dwt2: four bands (N, C, h, w) -> x (N, C, H, W), size = (H, W), by default (2h, 2w)."""
    _checks.check_bands(bands)
    if size is not None:
        _checks.check_size(size, (bands[0].shape[2], bands[0].shape[3]))
    resolve_backend(bands[0].device.type, bands[0].dtype, backend)
    return haar_idwt2_ref(HaarBands(*bands), size)


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
    (N, 1, ceil(H/2), ceil(W/2)) or 1: the explicit stream of DS2D2 (arXiv 2512.04413).
    """
    _checks.check_pair(student, teacher)
    _checks.check_weight("weight_low", weight_low)
    _checks.check_weight("weight_high", weight_high)
    _checks.check_cell_weight(cell_weight, student)
    resolve_backend(student.device.type, student.dtype, backend)
    return haar_weighted_mse_ref(student, teacher, weight_low, weight_high, cell_weight)
