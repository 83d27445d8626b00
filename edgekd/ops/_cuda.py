"""The CUDA C++ kernels: CUDA tensors in, new tensors out, launched through the driver on PyTorch's own stream.

The cubin is made by NVRTC at first use and cached by source hash and compute capability (see `edgekd.nvrtc`). No
gradient or sum needs an answer from the device: nothing here stalls it.
"""

import ctypes
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import torch
from torch import Tensor

from edgekd.errors import BackendUnavailable
from edgekd.nvrtc import cubin_for, kernel_sources_dir, load_nvrtc
from edgekd.ops._reference import BandWeights, HaarBands

THREADS = 256  # kBlock in haar_loss.cuh
MAX_LOSS_BLOCKS = 4096
Argument: TypeAlias = Tensor | int | float | None
DTYPE_NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}


def why_unavailable(device_type: str) -> str | None:
    """Return why these kernels cannot compute on such a device, or None when they can."""
    if device_type != "cuda":
        return f"the CUDA kernels do not take {device_type} tensors"
    try:
        kernel_sources_dir()
        if not os.environ.get("EDGEKD_CUBINS"):
            load_nvrtc()
    except BackendUnavailable as error:
        return str(error).removesuffix(".")
    return None


def analysis(x: Tensor, replicate: bool) -> HaarBands:
    """Forward transform."""
    n, c, height, width = x.shape
    bands = HaarBands(*(x.new_empty(n, c, (height + 1) // 2, (width + 1) // 2) for _ in range(4)))
    _launch("analysis", x, [x, *bands, *_sizes(x.shape), int(replicate)])
    return bands


def synthesis(bands: Sequence[Tensor], height: int, width: int, replicate: bool) -> Tensor:
    """Adjoint of `analysis`."""
    x = bands[0].new_empty(*bands[0].shape[:2], height, width)
    _launch("synthesis", x, [*bands, x, *_sizes(x.shape), int(replicate)])
    return x


def loss(
    student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Loss in two launches: partial sums, and their sum in float64; the gradient in one more when asked."""
    blocks = min(_n_blocks(student), MAX_LOSS_BLOCKS)
    partial_sums = torch.empty(blocks, dtype=torch.float32, device=student.device)
    value = torch.empty((), dtype=torch.float32, device=student.device)
    sizes = [*_sizes(student.shape), student.shape[1]]
    arguments = [student, teacher, cell_weight, partial_sums, *sizes, *weights.per_cell(student.shape)]
    _launch("loss", student, arguments, blocks)
    _launch_kernel(_module(student.device.index), "edgekd_finish", 1, [partial_sums, blocks, value], student.device)
    if not with_gradient:
        return value, student.new_empty(0)
    return value, loss_gradient(torch.ones_like(value), student, teacher, cell_weight, weights)


def loss_gradient(
    grad_output: Tensor, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights
) -> Tensor:
    """Gradient of the loss times grad_output, read on the device."""
    gradient = torch.empty_like(student)
    sizes = [*_sizes(student.shape), student.shape[1]]
    pointers = [grad_output.contiguous(), student, teacher, cell_weight, gradient]
    _launch("gradient", student, [*pointers, *sizes, *weights.per_cell(student.shape)])
    return gradient


def cells_per_thread(x: Tensor) -> int:
    """Return how many neighbouring cells one thread takes: 16 bytes' worth if rows and pointer allow it, else less."""
    height, width = x.shape[2:]
    if height % 2 or width % 2 or x.data_ptr() % 16:
        return 1
    cells = 16 // int(x.itemsize)
    while int(width // 2) % cells:
        cells //= 2
    return cells


def _launch(what: str, x: Tensor, arguments: list[Argument], blocks: int | None = None) -> None:
    tensors = [a for a in arguments if isinstance(a, Tensor)]
    cells = cells_per_thread(x) if all(t.data_ptr() % 16 == 0 for t in tensors if t.dim() == 4) else 1
    name = f"edgekd_{what}_{DTYPE_NAMES[x.dtype]}_{cells}"
    _launch_kernel(_module(x.device.index), name, blocks or _n_blocks(x), arguments, x.device)


def _n_blocks(x: Tensor) -> int:
    n, c, height, width = x.shape
    groups = n * c * ((height + 1) // 2) * ((width + 1) // 2 // cells_per_thread(x))
    return int(-(-groups // THREADS))


def _sizes(shape: torch.Size) -> tuple[int, int, int]:
    n, c, height, width = shape
    return n * c, height, width


@lru_cache(maxsize=1)
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


@lru_cache
def _module(device: int) -> ctypes.c_void_p:
    major, minor = torch.cuda.get_device_capability(device)
    cubin = cubin_for(10 * major + minor, "haar")
    module = ctypes.c_void_p()
    with torch.cuda.device(device):
        torch.cuda.current_stream()  # makes PyTorch's context the current one
        _check(_driver().cuModuleLoadData(ctypes.byref(module), cubin), "load the kernels")
    return module


def _launch_kernel(
    module: ctypes.c_void_p, name: str, blocks: int, arguments: list[Argument], device: torch.device
) -> None:
    function = ctypes.c_void_p()
    _check(_driver().cuModuleGetFunction(ctypes.byref(function), module, name.encode()), f"find {name}")
    values = [_c_value(argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    stream = ctypes.c_void_p(torch.cuda.current_stream(device).cuda_stream)
    with torch.cuda.device(device):
        launched = _driver().cuLaunchKernel(function, blocks, 1, 1, THREADS, 1, 1, 0, stream, pointers, None)
    _check(launched, f"launch {name}")


def _c_value(argument: Argument) -> ctypes.c_void_p | ctypes.c_int | ctypes.c_float:
    if argument is None or isinstance(argument, Tensor):
        return ctypes.c_void_p(argument.data_ptr() if argument is not None else None)
    return ctypes.c_int(argument) if isinstance(argument, int) else ctypes.c_float(argument)


def _check(code: int, task: str) -> None:
    if code != 0:
        message = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(message))
        raise RuntimeError(
            f"the CUDA driver could not {task}: {(message.value or b'unknown error').decode()} ({code})."
        )
