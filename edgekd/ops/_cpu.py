"""The CPU kernels behind ctypes: contiguous CPU tensors of float32, float16 or bfloat16 in, new tensors out."""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.errors import BackendUnavailable
from edgekd.ops._cpu_build import find_cpu_library
from edgekd.ops._reference import BandWeights, HaarBands

DTYPE_CODES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
BandPointers = ctypes.c_void_p * 4
COMPILE_COMMAND = "edgekd kernels compile --cpu"


class HaarShape(ctypes.Structure):
    """Mirror of edgekd_haar_shape in cuda_kernels/csrc/cpu/haar_cpu.h."""

    _fields_ = [
        ("planes", ctypes.c_int64),
        ("height", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("replicate", ctypes.c_int32),
        ("threads", ctypes.c_int32),
    ]


def why_unavailable(device_type: str) -> str | None:
    """Return why these kernels cannot compute on such a device, or None when they can."""
    if device_type != "cpu":
        return f"the CPU kernels do not take {device_type} tensors"
    if find_cpu_library() is None:
        return f"the CPU kernels are not compiled (run: {COMPILE_COMMAND})"
    return None


def instruction_set() -> str:
    """Return the instruction set of the row loops: avx512, avx2 or baseline."""
    return str(library().edgekd_haar_instruction_set().decode())


def analysis(x: Tensor, replicate: bool) -> HaarBands:
    """Forward transform of x (N, C, H, W): four bands (N, C, ceil(H/2), ceil(W/2))."""
    n, c, height, width = x.shape
    approx = x.new_empty((n, c, (height + 1) // 2, (width + 1) // 2))
    bands = HaarBands(approx, torch.empty_like(approx), torch.empty_like(approx), torch.empty_like(approx))
    shape = shape_pointer(x.shape, replicate, torch.get_num_threads())
    library().edgekd_haar_analysis(DTYPE_CODES[x.dtype], shape, x.data_ptr(), band_pointers(bands))
    return bands


def synthesis(bands: Sequence[Tensor], height: int, width: int, replicate: bool) -> Tensor:
    """Adjoint of `analysis`: four bands -> (N, C, height, width); without replicate it is the cropped inverse."""
    x = bands[0].new_empty(*bands[0].shape[:2], height, width)
    shape = shape_pointer(x.shape, replicate, torch.get_num_threads())
    library().edgekd_haar_synthesis(DTYPE_CODES[x.dtype], shape, band_pointers(bands), x.data_ptr())
    return x


def loss(
    student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Loss (a float32 scalar) and, in the same pass when asked, its gradient (else an empty tensor)."""
    value = student.new_empty((), dtype=torch.float32)
    gradient = torch.empty_like(student) if with_gradient else student.new_empty(0)
    _loss((student, teacher, cell_weight), weights, gradient, 2.0, value.data_ptr())
    return value, gradient


def loss_gradient(
    grad_output: Tensor, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights
) -> Tensor:
    """Gradient of the loss with respect to student, times grad_output; only the product is rounded to the dtype."""
    gradient = torch.empty_like(student)
    _loss((student, teacher, cell_weight), weights, gradient, 2.0 * grad_output.item(), None)
    return gradient


def _loss(
    maps: tuple[Tensor, Tensor, Tensor | None],
    weights: BandWeights,
    gradient: Tensor,
    gradient_scale: float,
    loss_pointer: int | None,
) -> None:
    student, teacher, cell_weight = maps
    library().edgekd_haar_loss(
        DTYPE_CODES[student.dtype],
        shape_pointer(student.shape, False, torch.get_num_threads()),
        student.data_ptr(),
        teacher.data_ptr(),
        cell_weight.data_ptr() if cell_weight is not None else None,
        student.shape[1],
        *weights.per_cell(student.shape),
        gradient.data_ptr() or None,
        gradient_scale,
        loss_pointer,
    )


@lru_cache
def shape_pointer(shape: torch.Size, replicate: bool, threads: int) -> Any:
    """Return a pointer to the HaarShape of maps (N, C, H, W)."""
    n, c, height, width = shape
    return ctypes.byref(HaarShape(n * c, height, width, replicate, threads))


def band_pointers(bands: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """Return the addresses of four bands as the C functions take them."""
    a, b, c, d = bands
    return BandPointers(a.data_ptr(), b.data_ptr(), c.data_ptr(), d.data_ptr())


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL:
    """Return the C library of cuda_kernels/csrc/cpu/haar_cpu.h, or raise BackendUnavailable."""
    path = find_cpu_library()
    if path is None:
        raise BackendUnavailable(f"the CPU kernels are not compiled; run: {COMPILE_COMMAND}.")
    return _declare(path)


def _declare(path: Path) -> ctypes.CDLL:
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendUnavailable(f"{path} cannot be loaded ({error}); run: {COMPILE_COMMAND}.") from error
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    loaded.edgekd_haar_analysis.argtypes = [integer, pointer, pointer, pointer]
    loaded.edgekd_haar_analysis.restype = None
    loaded.edgekd_haar_synthesis.argtypes = [integer, pointer, pointer, pointer]
    loaded.edgekd_haar_synthesis.restype = None
    loaded.edgekd_haar_loss.argtypes = [
        integer, pointer, pointer, pointer, pointer, ctypes.c_int64, real, real, pointer, real, pointer,
    ]  # fmt: skip
    loaded.edgekd_haar_loss.restype = None
    loaded.edgekd_haar_instruction_set.argtypes = []
    loaded.edgekd_haar_instruction_set.restype = ctypes.c_char_p
    return loaded
