# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
"""The Haar kernels in Triton: CUDA tensors (or CPU tensors in Triton's interpreter) in, new tensors out.

A program handles BLOCK groups of CELLS neighbouring cells: two rows of 2 * CELLS pixels, CELLS numbers per band, so
that CELLS * itemsize = 16 makes every access 16 bytes. Sizes are compile-time constants: divisions become
multiplications and the compiler sees the alignment. CELLS = 1 takes any size and masks every access.
"""

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from edgekd.ops._reference import BandWeights, HaarBands

BLOCK = 128
FUSION = {"enable_fp_fusion": True}  # pinned: its default changes with Triton 3.10


def why_unavailable(device_type: str) -> str | None:
    """Return why these kernels cannot compute on such a device, or None when they can."""
    if triton.knobs.runtime.interpret:
        return None if device_type == "cpu" else "Triton's interpreter is on, which takes CPU tensors only"
    if device_type != "cuda":
        return f"Triton takes CUDA tensors, not {device_type} ones"
    return None


@triton.jit
def _butterfly(a, b, c, d):
    top, top_step, bottom, bottom_step = a + b, a - b, c + d, c - d
    return (
        0.5 * (top + bottom),
        0.5 * (top - bottom),
        0.5 * (top_step + bottom_step),
        0.5 * (top_step - bottom_step),
    )


@triton.jit
def _places(n_groups, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr, BLOCK: tl.constexpr):
    """Groups of this program: a mask, the plane, the cell row, the first cell column."""
    WIDE: tl.constexpr = (WIDTH + 1) // 2 // CELLS
    HIGH: tl.constexpr = (HEIGHT + 1) // 2
    group = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = group // WIDE
    return group < n_groups, row // HIGH, row % HIGH, group % WIDE * CELLS


@triton.jit
def _band_offsets(plane, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr):
    HIGH: tl.constexpr = (HEIGHT + 1) // 2
    WIDE: tl.constexpr = (WIDTH + 1) // 2
    start = (plane.to(tl.int64) * HIGH + row) * WIDE + column
    offsets = start[:, None] + tl.arange(0, CELLS)[None, :]
    return tl.max_contiguous(tl.multiple_of(offsets, (1, CELLS)), (1, CELLS))


@triton.jit
def _pixel_offsets(plane, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr):
    """Offsets of the upper row, and which of its pixels the image has."""
    start = (plane.to(tl.int64) * HEIGHT + 2 * row) * WIDTH + 2 * column
    along = tl.arange(0, 2 * CELLS)[None, :]
    offsets = start[:, None] + along
    if CELLS > 1:
        offsets = tl.max_contiguous(tl.multiple_of(offsets, (1, 2 * CELLS)), (1, 2 * CELLS))
    return offsets, 2 * column[:, None] + along < WIDTH


@triton.jit
def _load_cells(
    x, mask, plane, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr,
    BLOCK: tl.constexpr, REPLICATE: tl.constexpr,
):  # fmt: skip
    offsets, inside = _pixel_offsets(plane, row, column, HEIGHT, WIDTH, CELLS)
    below = mask[:, None] & (2 * row[:, None] + 1 < HEIGHT)
    top = tl.load(x + offsets, mask=mask[:, None] & inside, other=0.0).to(tl.float32)
    bottom = tl.load(x + offsets + WIDTH, mask=below & inside, other=0.0).to(tl.float32)
    if REPLICATE and HEIGHT % 2 == 1:
        bottom = tl.where(2 * row[:, None] + 1 < HEIGHT, bottom, top)
    a, b = tl.split(tl.reshape(top, (BLOCK, CELLS, 2)))
    c, d = tl.split(tl.reshape(bottom, (BLOCK, CELLS, 2)))
    if REPLICATE and WIDTH % 2 == 1:
        right = 2 * (column[:, None] + tl.arange(0, CELLS)[None, :]) + 1 < WIDTH
        b, d = tl.where(right, b, a), tl.where(right, d, c)
    return a, b, c, d


@triton.jit
def _store_cells(
    x, a, b, c, d, mask, plane, row, column, HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr,
    BLOCK: tl.constexpr, REPLICATE: tl.constexpr,
):  # fmt: skip
    """The adjoint of _load_cells."""
    if REPLICATE and HEIGHT % 2 == 1:
        has_bottom = 2 * row[:, None] + 1 < HEIGHT
        a, b = tl.where(has_bottom, a, a + c), tl.where(has_bottom, b, b + d)
    if REPLICATE and WIDTH % 2 == 1:
        right = 2 * (column[:, None] + tl.arange(0, CELLS)[None, :]) + 1 < WIDTH
        a, c = tl.where(right, a, a + b), tl.where(right, c, c + d)
    offsets, inside = _pixel_offsets(plane, row, column, HEIGHT, WIDTH, CELLS)
    below = mask[:, None] & (2 * row[:, None] + 1 < HEIGHT)
    top = tl.reshape(tl.join(a, b), (BLOCK, 2 * CELLS)).to(x.dtype.element_ty)
    bottom = tl.reshape(tl.join(c, d), (BLOCK, 2 * CELLS)).to(x.dtype.element_ty)
    tl.store(x + offsets, top, mask=mask[:, None] & inside)
    tl.store(x + offsets + WIDTH, bottom, mask=below & inside)


@triton.jit
def haar_analysis_kernel(
    x, approx, horizontal, vertical, diagonal, n_groups, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    CELLS: tl.constexpr, BLOCK: tl.constexpr, REPLICATE: tl.constexpr,
):  # fmt: skip
    """x -> four bands."""
    mask, plane, row, column = _places(n_groups, HEIGHT, WIDTH, CELLS, BLOCK)
    a, b, c, d = _load_cells(x, mask, plane, row, column, HEIGHT, WIDTH, CELLS, BLOCK, REPLICATE)
    ka, kh, kv, kd = _butterfly(a, b, c, d)
    at = _band_offsets(plane, row, column, HEIGHT, WIDTH, CELLS)
    wide = mask[:, None] & (tl.arange(0, CELLS)[None, :] < CELLS)
    tl.store(approx + at, ka.to(approx.dtype.element_ty), mask=wide)
    tl.store(horizontal + at, kh.to(approx.dtype.element_ty), mask=wide)
    tl.store(vertical + at, kv.to(approx.dtype.element_ty), mask=wide)
    tl.store(diagonal + at, kd.to(approx.dtype.element_ty), mask=wide)


@triton.jit
def haar_synthesis_kernel(
    approx, horizontal, vertical, diagonal, x, n_groups, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    CELLS: tl.constexpr, BLOCK: tl.constexpr, REPLICATE: tl.constexpr,
):  # fmt: skip
    """Four bands -> x."""
    mask, plane, row, column = _places(n_groups, HEIGHT, WIDTH, CELLS, BLOCK)
    at = _band_offsets(plane, row, column, HEIGHT, WIDTH, CELLS)
    wide = mask[:, None] & (tl.arange(0, CELLS)[None, :] < CELLS)
    ka = tl.load(approx + at, mask=wide, other=0.0).to(tl.float32)
    kh = tl.load(horizontal + at, mask=wide, other=0.0).to(tl.float32)
    kv = tl.load(vertical + at, mask=wide, other=0.0).to(tl.float32)
    kd = tl.load(diagonal + at, mask=wide, other=0.0).to(tl.float32)
    a, b, c, d = _butterfly(ka, kh, kv, kd)
    _store_cells(x, a, b, c, d, mask, plane, row, column, HEIGHT, WIDTH, CELLS, BLOCK, REPLICATE)


@triton.jit
def _error_bands(
    student, teacher, cell_weight, n_groups, CHANNELS: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    CELLS: tl.constexpr, BLOCK: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """Places, weights and bands of student - teacher."""
    mask, plane, row, column = _places(n_groups, HEIGHT, WIDTH, CELLS, BLOCK)
    sa, sb, sc, sd = _load_cells(student, mask, plane, row, column, HEIGHT, WIDTH, CELLS, BLOCK, False)
    ta, tb, tc, td = _load_cells(teacher, mask, plane, row, column, HEIGHT, WIDTH, CELLS, BLOCK, False)
    ka, kh, kv, kd = _butterfly(sa - ta, sb - tb, sc - tc, sd - td)
    weight = tl.full((BLOCK, CELLS), 1.0, tl.float32)
    if WEIGHTED:
        at = _band_offsets(plane // CHANNELS, row, column, HEIGHT, WIDTH, CELLS)
        wide = mask[:, None] & (tl.arange(0, CELLS)[None, :] < CELLS)
        weight = tl.load(cell_weight + at, mask=wide, other=0.0)
    return mask, plane, row, column, weight, ka, kh, kv, kd


@triton.jit
def haar_loss_kernel(
    student, teacher, cell_weight, partial_sums, n_groups, low, high, CHANNELS: tl.constexpr, HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr, CELLS: tl.constexpr, BLOCK: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """partial_sums[program] = the energy of its groups."""
    _mask, _plane, _row, _column, weight, ka, kh, kv, kd = _error_bands(
        student, teacher, cell_weight, n_groups, CHANNELS, HEIGHT, WIDTH, CELLS, BLOCK, WEIGHTED
    )
    energy = weight * (low * ka * ka + high * (kh * kh + kv * kv + kd * kd))
    tl.store(partial_sums + tl.program_id(0), tl.sum(tl.sum(energy, 1), 0))


@triton.jit
def haar_gradient_kernel(
    grad_output, student, teacher, cell_weight, gradient, n_groups, low, high, CHANNELS: tl.constexpr,
    HEIGHT: tl.constexpr, WIDTH: tl.constexpr, CELLS: tl.constexpr, BLOCK: tl.constexpr, WEIGHTED: tl.constexpr,
):  # fmt: skip
    """gradient = grad_output[0] times the derivative of the energy with respect to student."""
    mask, plane, row, column, weight, ka, kh, kv, kd = _error_bands(
        student, teacher, cell_weight, n_groups, CHANNELS, HEIGHT, WIDTH, CELLS, BLOCK, WEIGHTED
    )
    factor = 2.0 * tl.load(grad_output) * weight
    a, b, c, d = _butterfly(factor * low * ka, factor * high * kh, factor * high * kv, factor * high * kd)
    _store_cells(gradient, a, b, c, d, mask, plane, row, column, HEIGHT, WIDTH, CELLS, BLOCK, False)


def analysis(x: Tensor, replicate: bool) -> HaarBands:
    """Forward transform."""
    n, c, height, width = x.shape
    bands = HaarBands(*(x.new_empty(n, c, (height + 1) // 2, (width + 1) // 2) for _ in range(4)))
    grid, sizes = _plan(x)
    with torch.cuda.device_of(x):
        haar_analysis_kernel[grid](x, *bands, **sizes, REPLICATE=replicate)
    return bands


def synthesis(bands: Sequence[Tensor], height: int, width: int, replicate: bool) -> Tensor:
    """Adjoint of `analysis`."""
    x = bands[0].new_empty(*bands[0].shape[:2], height, width)
    grid, sizes = _plan(x)
    with torch.cuda.device_of(x):
        haar_synthesis_kernel[grid](*bands, x, **sizes, REPLICATE=replicate)
    return x


def loss(
    student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Loss: one launch for partial sums, one for their sum; and the gradient by one more when asked."""
    grid, sizes = _plan(student)
    low, high = weights.per_cell(student.shape)
    partial_sums = torch.empty(grid, dtype=torch.float32, device=student.device)
    options = {"CHANNELS": student.shape[1], "WEIGHTED": cell_weight is not None}
    with torch.cuda.device_of(student):
        haar_loss_kernel[grid](student, teacher, cell_weight, partial_sums, low=low, high=high, **sizes, **options)
    value = partial_sums.sum()
    if not with_gradient:
        return value, student.new_empty(0)
    return value, loss_gradient(torch.ones_like(value), student, teacher, cell_weight, weights)


def loss_gradient(
    grad_output: Tensor, student: Tensor, teacher: Tensor, cell_weight: Tensor | None, weights: BandWeights
) -> Tensor:
    """Gradient of the loss times grad_output, read on the device: no stall."""
    grid, sizes = _plan(student)
    low, high = weights.per_cell(student.shape)
    gradient = torch.empty_like(student)
    options = {"CHANNELS": student.shape[1], "WEIGHTED": cell_weight is not None}
    with torch.cuda.device_of(student):
        haar_gradient_kernel[grid](
            grad_output, student, teacher, cell_weight, gradient, low=low, high=high, **sizes, **options
        )
    return gradient


def cells_per_thread(height: int, width: int, itemsize: int) -> int:
    """Return how many neighbouring cells one thread takes: 16 bytes' worth if the row allows it, else less."""
    if height % 2 or width % 2:
        return 1
    cells = 16 // itemsize
    while (width // 2) % cells:
        cells //= 2
    return cells


def _plan(x: Tensor) -> tuple[tuple[int], dict[str, Any]]:
    n, c, height, width = x.shape
    cells = cells_per_thread(height, width, x.itemsize)
    n_groups = n * c * ((height + 1) // 2) * ((width + 1) // 2 // cells)
    sizes = {"n_groups": n_groups, "HEIGHT": height, "WIDTH": width, "CELLS": cells, "BLOCK": BLOCK, **FUSION}
    return (triton.cdiv(n_groups, BLOCK),), sizes
