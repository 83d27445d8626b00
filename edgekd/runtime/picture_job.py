"""What a launch of the picture kernels is told: sizes, places, normalisation and how the output is cut into tiles.

A placement (or windows) and a network's input go in, a `Job` and the grid come out: plain arithmetic, no GPU needed.
The kernels are in `cuda_kernels/csrc/picture_kernels.cu`; `Job` mirrors their structure.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from edgekd.errors import InputError
from edgekd.model_set import CropInput, ImageInput
from edgekd.runtime.preprocess import Placement, averages
from edgekd.types import Int32Array

THREADS = 128
PIXELS = 4
"""Neighbouring output pixels of one thread: 16 bytes of float32."""

MAX_GROUPS = 32
STAGED_BYTES = 16 * 1024
MOST_STAGED_BYTES = 48 * 1024
"""Shared memory that every GPU gives a block without being asked for more."""

MAX_OUTPUT_PX = 8192
"""Products of source and output sizes stay within 32 bits."""


class Job(ctypes.Structure):
    """The structure `Job` of `picture_device.cuh`, field by field."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("picture_width", "picture_height", "out_width", "out_height")),
        *((name, ctypes.c_int) for name in ("left", "top", "width", "height")),
        *((name, ctypes.c_int) for name in ("tile_groups", "staged_bytes", "averages")),
        *((name, ctypes.c_float * 3) for name in ("gain", "shift", "pad")),
    )


@dataclass(frozen=True)
class Launch:
    """A job and its grid of blocks: across, down, windows."""

    job: Job
    grid: tuple[int, int, int]


def letterbox_launch(placement: Placement, spec: ImageInput) -> Launch:
    """Describe how a picture becomes a network's input, as `preprocess` makes it.

    Raises:
        InputError: the input is larger than the kernels can count.
    """
    (height, width), (out_height, out_width) = placement.resized_px, placement.input_px
    job = _job(placement.picture_px, (out_height, out_width), placement.picture_px[1] / width)
    job.left, job.top, job.width, job.height = placement.left_px, placement.top_px, width, height
    # OpenCV, too, takes the plain mean where a linear resize halves both sides.
    job.averages = averages(placement, spec) or placement.picture_px == (2 * height, 2 * width)
    for channel in range(3):
        mean, std = spec.mean[channel], spec.std[channel]
        job.gain[channel], job.shift[channel] = 1 / std, -mean / std
        job.pad[channel] = (spec.pad[channel] - mean) / std
    return Launch(job, _grid(job, 1))


def crops_launch(picture_px: tuple[int, int], windows: Int32Array, spec: CropInput) -> Launch:
    """Describe how windows of a picture of (height, width) become crops, as `crops.cut` makes them.

    Args:
        picture_px: (height, width).
        windows: (n, 4) int32 left, top, right, bottom, n of at least 1.
        spec: side and padding.
    """
    side = spec.side_px
    job = _job(picture_px, (side, side), int((windows[:, 2] - windows[:, 0]).max()) / side)
    job.width = job.height = side
    job.pad[:] = [float(round(value)) for value in spec.pad]
    return Launch(job, _grid(job, len(windows)))


def _job(picture_px: tuple[int, int], out_px: tuple[int, int], scale: float) -> Job:
    """A job whose tiles are as wide as shared memory holds one source row of; `scale` is source per output pixel."""
    if max(out_px) > MAX_OUTPUT_PX:
        raise InputError(f"the network's input is {out_px[1]}x{out_px[0]} px, expected at most {MAX_OUTPUT_PX} a side")
    groups = min(MAX_GROUPS, -(-out_px[1] // PIXELS))
    while groups > 1 and _row_bytes(groups, scale) > STAGED_BYTES:
        groups = (groups + 1) // 2
    staged = max(STAGED_BYTES, _row_bytes(groups, scale))
    if staged > MOST_STAGED_BYTES:
        raise InputError(f"the picture shrinks {scale:.0f} times, expected at most {MOST_STAGED_BYTES // 16}; tile it")
    return Job(picture_px[1], picture_px[0], out_px[1], out_px[0], tile_groups=groups, staged_bytes=staged)


def _row_bytes(groups: int, scale: float) -> int:
    """Bytes of one source row of a tile, and what 128-bit loads read around it."""
    return (int(groups * PIXELS * scale) + 3) * 3 // 16 * 16 + 48


def _grid(job: Job, n_windows: int) -> tuple[int, int, int]:
    columns, rows = job.tile_groups * PIXELS, THREADS // job.tile_groups
    return -(-job.out_width // columns), -(-job.out_height // rows), n_windows
