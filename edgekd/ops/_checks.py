"""Argument checks of the Haar ops: each raises a TypeError or ValueError naming the argument, what came, what fits."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MODES = ("zero", "symmetric", "periodization")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def check_feature_map(name: str, x: object) -> None:
    """Accept a non-empty floating (N, C, H, W) tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}, expected a tensor of shape (N, C, H, W).")
    if x.dtype not in DTYPES:
        raise TypeError(f"{name} has dtype {x.dtype}, expected one of float16, bfloat16, float32, float64.")
    if x.dim() != 4:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected 4 dimensions (N, C, H, W).")
    if 0 in x.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected every dimension to be at least 1.")


def check_mode(mode: object) -> None:
    """Accept the three boundary modes."""
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}.")


def check_bands(bands: object) -> None:
    """Accept four feature maps of one shape, dtype and device."""
    if not isinstance(bands, Sequence) or len(bands) != 4:
        raise TypeError("bands must be HaarBands: four tensors (approx, horizontal, vertical, diagonal).")
    for name, band in zip(("approx", "horizontal", "vertical", "diagonal"), bands, strict=True):
        check_feature_map(f"bands.{name}", band)
        _check_alike(f"bands.{name}", band, "bands.approx", bands[0])
        if band.dtype != bands[0].dtype:
            raise TypeError(f"bands.{name} has dtype {band.dtype}, expected {bands[0].dtype} as bands.approx.")


def check_size(size: object, grid: tuple[int, int]) -> None:
    """Accept (H, W) whose halves, rounded up, are the grid of the bands."""
    if not isinstance(size, Sequence) or len(size) != 2 or not all(isinstance(n, int) for n in size):
        raise TypeError(f"size is {size!r}, expected two integers (H, W).")
    if tuple((n + 1) // 2 for n in size) != grid:
        h, w = grid
        raise ValueError(
            f"size is {tuple(size)}, expected H in ({2 * h - 1}, {2 * h}) and W in ({2 * w - 1}, {2 * w}) "
            f"for bands of {h} x {w} cells."
        )


def check_pair(student: Tensor, teacher: Tensor) -> None:
    """Accept two feature maps of one shape on one device."""
    check_feature_map("student", student)
    check_feature_map("teacher", teacher)
    _check_alike("teacher", teacher, "student", student)


def check_weight(name: str, weight: object) -> None:
    """Accept a finite number that is not negative."""
    if isinstance(weight, bool) or not isinstance(weight, (int, float)):
        raise TypeError(f"{name} is a {type(weight).__name__}, expected a number.")
    if not math.isfinite(weight) or weight < 0:
        raise ValueError(f"{name} is {weight}, expected a finite number of at least 0.")


def check_cell_weight(cell_weight: object, student: Tensor) -> None:
    """Accept None or a constant floating (N, 1, ceil(H/2), ceil(W/2)) beside a student (N, C, H, W)."""
    if cell_weight is None:
        return
    n, _, height, width = student.shape
    expected = (n, 1, (height + 1) // 2, (width + 1) // 2)
    if not isinstance(cell_weight, Tensor) or cell_weight.dtype not in DTYPES:
        came = cell_weight.dtype if isinstance(cell_weight, Tensor) else type(cell_weight).__name__
        raise TypeError(f"cell_weight is {came}, expected a floating tensor of shape {expected}.")
    if tuple(cell_weight.shape) != expected:
        raise ValueError(
            f"cell_weight has shape {tuple(cell_weight.shape)}, expected {expected}: one weight per image and cell of "
            f"the band grid of a student {tuple(student.shape)}."
        )
    if cell_weight.device != student.device:
        raise ValueError(f"cell_weight is on {cell_weight.device}, expected {student.device} as student.")
    if cell_weight.requires_grad:
        raise ValueError("cell_weight requires a gradient, expected a constant: pass cell_weight.detach().")


def _check_alike(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    if x.shape != other.shape:
        raise ValueError(f"{name} has shape {tuple(x.shape)}, expected {tuple(other.shape)} as {other_name}.")
    if x.device != other.device:
        raise ValueError(f"{name} is on {x.device}, expected {other.device} as {other_name}.")
