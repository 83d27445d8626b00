"""Which implementation computes: one function that decides and says why, from a device, a dtype and a request."""

import os
from typing import NamedTuple

import torch

from edgekd.errors import BackendUnavailable, InputError

ENVIRONMENT_VARIABLE = "EDGEKD_KERNELS"
CHOICES = ("auto", "triton", "cuda", "cpu", "reference")


class Backend(NamedTuple):
    """An implementation and the reason it was taken, one sentence for `edgekd kernels info`."""

    name: str
    reason: str


def resolve_backend(device_type: str, dtype: torch.dtype, requested: str | None = None) -> Backend:
    """Decide who computes: an argument first, then EDGEKD_KERNELS, then the fastest that is there.

    A request that cannot be met raises BackendUnavailable; an unknown name raises InputError.
    """
    choice, asked_by = (requested, "the argument") if requested else _environment_request()
    if choice not in CHOICES:
        raise InputError(f"{asked_by} asks for the kernels {choice!r}, expected one of {', '.join(CHOICES)}.")
    if choice in ("auto", "reference"):
        return Backend("reference", "PyTorch reference")
    raise BackendUnavailable(f"{asked_by} asks for the {choice} kernels, which are not built; use reference.")


def _environment_request() -> tuple[str, str]:
    return os.environ.get(ENVIRONMENT_VARIABLE) or "auto", ENVIRONMENT_VARIABLE
