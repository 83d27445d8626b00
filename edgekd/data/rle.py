"""COCO's run lengths: counts as numbers or as COCO's own text come in, a mask goes out."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekd.errors import BackendUnavailable, DataError
from edgekd.types import UInt8Array


def coco_masks() -> Any:
    """Return faster-coco-eval's functions for run lengths and polygons.

    Raises:
        BackendUnavailable: it is not installed.
    """
    try:
        from faster_coco_eval.core import mask
    except ImportError as error:
        raise BackendUnavailable(
            f"faster-coco-eval cannot be imported ({error}); install it with: pip install faster-coco-eval"
        ) from error
    return mask


def decode_rle(rle: dict[str, Any], size_px: tuple[int, int]) -> UInt8Array:
    """Return the (H, W) uint8 mask of 0 and 1.

    Args:
        rle: `size` [height, width] and `counts`: a list of run lengths, or COCO's compressed text; runs go down the
            columns and start with zeros.
        size_px: (height, width) of the picture.

    Raises:
        DataError: a key is missing, the size is another, or the runs do not fill the picture.
    """
    counts, size = rle.get("counts"), rle.get("size")
    if not isinstance(size, list | tuple) or list(size) != list(size_px) or not isinstance(counts, list | str | bytes):
        raise DataError(f"run lengths need counts and the size {list(size_px)} of the picture, got {str(size)[:40]}")
    try:
        runs = np.array(counts if isinstance(counts, list) else _uncompress(counts), np.int64)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"the counts of run lengths are not whole numbers ({error})"[:160]) from error
    n_pixels = size_px[0] * size_px[1]
    if runs.ndim != 1 or (runs < 0).any() or (runs > n_pixels).any() or int(runs.sum()) != n_pixels:
        raise DataError(f"run lengths do not fill the {size_px[1]}x{size_px[0]} pixels of the picture")
    flat = np.repeat(np.arange(len(runs)) % 2, runs).astype(np.uint8)
    return np.ascontiguousarray(flat.reshape(size_px[::-1]).T)


def _uncompress(text: str | bytes) -> list[int]:
    """Read COCO's text: five bits a character from `0` up, a sixth says that more follow, and every run after the
    second is the difference to the run two before.
    """
    data = text.encode("ascii") if isinstance(text, str) else text
    runs: list[int] = []
    value = shift = 0
    for character in data:
        bits = character - 48
        if not 0 <= bits < 64 or shift > 50:
            raise ValueError(f"byte {character} is not one of COCO's run lengths")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("the text is cut")
    return runs
