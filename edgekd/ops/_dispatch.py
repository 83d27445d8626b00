"""Which implementation computes: one function that decides and says why, from a device, a dtype and a request."""

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from edgekd.errors import BackendUnavailable, InputError
from edgekd.ops._reference import BandWeights, HaarBands

ENVIRONMENT_VARIABLE = "EDGEKD_KERNELS"
CHOICES = ("auto", "triton", "cuda", "cpu", "reference")
# The first that can be used is taken; the reference always can.
PREFERENCE = {"cuda": ("triton", "cuda"), "cpu": ("cpu",)}
KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


class Backend(NamedTuple):
    """An implementation and the reason it was taken, for `edgekd kernels info`."""

    name: str
    reason: str


def resolve_backend(device_type: str, dtype: torch.dtype, requested: str | None = None) -> Backend:
    """Decide who computes: an argument first, then EDGEKD_KERNELS, then the fastest that is there.

    device_type is torch.device.type. A request that cannot be met raises BackendUnavailable; an unknown name raises
    InputError.
    """
    return _decide(device_type, dtype, requested or "", os.environ.get(ENVIRONMENT_VARIABLE) or "auto")


@lru_cache
def _decide(device_type: str, dtype: torch.dtype, requested: str, environment: str) -> Backend:
    asked_by = "the argument backend" if requested else f"the variable {ENVIRONMENT_VARIABLE}"
    choice = requested or environment
    if choice not in CHOICES:
        raise InputError(f"{asked_by} is {choice!r}, expected one of {', '.join(CHOICES)}.")
    if choice == "auto":
        return _best_backend(device_type, dtype)
    obstacle = why_unavailable(choice, device_type, dtype)
    if obstacle:
        raise BackendUnavailable(f"{asked_by} asks for {choice}, but {obstacle}; use auto or reference.")
    return Backend(choice, f"{asked_by} asks for it")


def why_unavailable(name: str, device_type: str, dtype: torch.dtype) -> str | None:
    """Return why this implementation cannot compute this dtype on this device, or None when it can."""
    if name == "reference":
        return None
    if dtype not in KERNEL_DTYPES:
        return f"{str(dtype).removeprefix('torch.')} is computed by the reference only"
    obstacle: str | None = import_module(f"edgekd.ops._{name}").why_unavailable(device_type)
    return obstacle


def _best_backend(device_type: str, dtype: torch.dtype) -> Backend:
    obstacles: list[str] = []
    for name in PREFERENCE.get(device_type, ()):
        obstacle = why_unavailable(name, device_type, dtype)
        if obstacle is None:
            return Backend(name, "; ".join([*obstacles, f"the fastest for {device_type} tensors that is here"]))
        obstacles.append(f"not {name}: {obstacle}")
    return Backend("reference", "; ".join(obstacles) or f"there are no kernels for {device_type} tensors")


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
