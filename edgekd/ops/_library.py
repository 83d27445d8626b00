"""The Haar arithmetic as PyTorch operators `edgekd::*`, with fake shapes for torch.compile.

Their derivatives are in `_autograd`. They are defined one by one: `torch.library.custom_op` does the same in more
layers of Python, which take longer than the arithmetic of a small map.
"""

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from edgekd.ops._dispatch import Kernels, resolve_backend
from edgekd.ops._reference import BandWeights, HaarBands


def loss_dtype(student: Tensor) -> torch.dtype:
    """Return the dtype of the loss: float64 for float64 maps, else float32."""
    return torch.float64 if student.dtype == torch.float64 else torch.float32


def _kernels(x: Tensor, backend: str) -> Kernels:
    return _module(resolve_backend(x.device.type, x.dtype, backend).name)


@lru_cache
def _module(backend: str) -> Kernels:
    return cast(Kernels, import_module(f"edgekd.ops._{backend}"))


def compute_analysis(x: Tensor, replicate: bool, backend: str) -> HaarBands:
    return _kernels(x, backend).analysis(x.contiguous(), replicate)


def _fake_analysis(x: Tensor, replicate: bool, backend: str) -> HaarBands:
    n, c, height, width = x.shape
    return HaarBands(*(x.new_empty(n, c, (height + 1) // 2, (width + 1) // 2) for _ in range(4)))


def compute_synthesis(bands: list[Tensor], height: int, width: int, replicate: bool, backend: str) -> Tensor:
    whole = [band.contiguous() for band in bands]
    return _kernels(bands[0], backend).synthesis(whole, height, width, replicate)


def _fake_synthesis(bands: list[Tensor], height: int, width: int, replicate: bool, backend: str) -> Tensor:
    return bands[0].new_empty(bands[0].shape[0], bands[0].shape[1], height, width)


def compute_loss(
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    with_gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    pair = student.contiguous(), teacher.contiguous()
    return _kernels(student, backend).loss(*pair, cell_weight, BandWeights(*weights), with_gradient)


def _fake_loss(
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    with_gradient: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    gradient = student.new_empty(student.shape) if with_gradient else student.new_empty(0)
    return student.new_empty((), dtype=loss_dtype(student)), gradient


def compute_gradient(
    grad_output: Tensor,
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    backend: str,
) -> Tensor:
    pair = student.contiguous(), teacher.contiguous()
    return _kernels(student, backend).loss_gradient(grad_output, *pair, cell_weight, BandWeights(*weights))


def _fake_gradient(
    grad_output: Tensor,
    student: Tensor,
    teacher: Tensor,
    cell_weight: Tensor | None,
    weights: list[float],
    backend: str,
) -> Tensor:
    return student.new_empty(student.shape)


def _define(name: str, schema: str, compute: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """Define the operator edgekd::name for every device and return it."""
    torch.library.define(f"edgekd::{name}", schema, tags=torch.Tag.pt2_compliant_tag)
    torch.library.impl(f"edgekd::{name}", "default", compute)
    torch.library.register_fake(f"edgekd::{name}", fake)
    return getattr(torch.ops.edgekd, name).default


haar_analysis = _define(
    "haar_analysis",
    "(Tensor x, bool replicate, str backend) -> (Tensor, Tensor, Tensor, Tensor)",
    compute_analysis,
    _fake_analysis,
)
haar_synthesis = _define(
    "haar_synthesis",
    "(Tensor[] bands, SymInt height, SymInt width, bool replicate, str backend) -> Tensor",
    compute_synthesis,
    _fake_synthesis,
)
haar_weighted_mse = _define(
    "haar_weighted_mse",
    "(Tensor student, Tensor teacher, Tensor? cell_weight, float[] weights, bool with_gradient, str backend)"
    " -> (Tensor, Tensor)",
    compute_loss,
    _fake_loss,
)
haar_weighted_mse_gradient = _define(
    "haar_weighted_mse_gradient",
    "(Tensor grad_output, Tensor student, Tensor teacher, Tensor? cell_weight, float[] weights, str backend) -> Tensor",
    compute_gradient,
    _fake_gradient,
)
