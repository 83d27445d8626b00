"""What every implementation provides: the four functions of a `Kernels` module and the weights they share.

The tensors are contiguous, of one dtype and device; cell_weight is float32. Each implementation module (`_reference`,
`_cpu`, `_triton`, `_cuda`) has these functions at its top level.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from edgekd.ops._ref import HaarBands


class BandWeights(NamedTuple):
    """weight_low and weight_high of the loss: each multiplies a mean over the cells of its band or bands."""

    low: float
    high: float

    def per_cell(self, shape: Sequence[int]) -> tuple[float, float]:
        """Return what multiplies one squared coefficient of a student (N, C, H, W), so that sums become means."""
        n, c, height, width = shape
        n_cells = n * c * ((height + 1) // 2) * ((width + 1) // 2)
        return self.low / n_cells, self.high / (3 * n_cells)


class Kernels(Protocol):
    """One implementation of the Haar arithmetic."""

    def analysis(self, x: Tensor, replicate: bool) -> HaarBands:
        """Forward transform: four bands; beyond an odd edge stands zero or (replicate) the last row or column."""

    def synthesis(self, bands: Sequence[Tensor], height: int, width: int, replicate: bool) -> Tensor:
        """Adjoint of `analysis`; without replicate it is the inverse, cropped to height x width."""

    def loss(
        self, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights, with_gradient: bool
    ) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient with respect to student or an empty tensor."""

    def loss_gradient(
        self, grad_output: Tensor, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights
    ) -> Tensor:
        """Gradient of the loss with respect to student, times the scalar grad_output."""
