"""Where networks get their inputs from: a picture is taken once, then every network asks for what it wants of it.

`open_pictures` chooses. On a CPU, and where the kernels are not to be had, pictures are prepared by `preprocess` and
`cut`, which are the reference; on a GPU by `device_pictures`, from one upload. A chain has its own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from edgekd.errors import BackendUnavailable, BuildError, InputError
from edgekd.graphs import CROPS, IMAGE, IMAGES, StageName
from edgekd.model_set import CropInput, ImageInput
from edgekd.runtime.crops import cut
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.engines import Engine, QueuingEngine, Tensor
from edgekd.runtime.preprocess import Placement, preprocess
from edgekd.runtime.turned_crops import Turns, cut_turned
from edgekd.types import Int32Array, UInt8Array

_LOG = logging.getLogger("edgekd.pictures")


class Pictures(Protocol):
    """What a chain asks of either kind.

    Attributes:
        on_device: inputs are made on the GPU, and runs that need the picture alone may be queued ahead.
        reason: why a GPU's pictures are prepared on the host; empty where there is nothing to say.
        number: of the picture at hand; another one has another number.
    """

    on_device: bool
    reason: str
    number: int

    def take(self, picture: UInt8Array) -> None:
        """Make (H, W, 3) uint8 BGR the picture at hand; it must not change until the chain has answered."""

    def letterbox(self, spec: ImageInput, engine: Engine, name: str) -> tuple[Tensor, Placement]:
        """Return the input `name` of a network that sees the whole picture, and where the picture lies in it."""

    def crops(self, windows: Int32Array, spec: CropInput, engine: Engine, turns: Turns | None = None) -> Tensor:
        """Return the crops (n, S, S, 3) uint8 RGB of windows (n, 4) int32, n of at least 1.

        With `turns` (n, 4) of `edgekd.runtime.turned_crops` each window lies in the frame of its box; such crops are
        cut on the host everywhere.
        """

    def close(self) -> None:
        """Give memory back."""


class HostPictures:
    """The reference: OpenCV on the CPU; see `Pictures`."""

    on_device = False

    def __init__(self, reason: str = "") -> None:
        self.reason, self.number = reason, 0
        self._picture: UInt8Array = np.zeros((0, 0, 3), np.uint8)

    def take(self, picture: UInt8Array) -> None:
        """Keep a reference."""
        self._picture = picture
        self.number += 1

    def letterbox(self, spec: ImageInput, engine: Engine, name: str) -> tuple[Tensor, Placement]:
        """Resize, pad and normalise."""
        return preprocess(self._picture, spec)

    def crops(self, windows: Int32Array, spec: CropInput, engine: Engine, turns: Turns | None = None) -> Tensor:
        """Cut and resize; equal windows at the end are copies."""
        places = windows if turns is None else np.concatenate([windows, turns], 1)
        n = len(windows)
        while n > 1 and (places[n - 1] == places[n - 2]).all():
            n -= 1
        if turns is None:
            crops = cut(self._picture, windows[:n], spec)
        else:
            crops = cut_turned(self._picture, windows[:n], turns[:n], spec)
        return np.concatenate([crops, np.repeat(crops[-1:], len(windows) - n, 0)]) if n < len(windows) else crops

    def close(self) -> None:
        """Forget the picture."""
        self._picture = np.zeros((0, 0, 3), np.uint8)


def open_pictures(engines: Mapping[StageName, Engine]) -> Pictures:
    """Return the device's pictures where the engines are on a GPU, otherwise the host's.

    Where the kernels cannot be had on a GPU, one warning says why. EDGEKD_PICTURES=host asks for the host's to compare.

    Raises:
        InputError: EDGEKD_PICTURES is another word.
    """
    wanted = os.environ.get("EDGEKD_PICTURES", "")
    if wanted not in ("", "host"):
        raise InputError(f"EDGEKD_PICTURES is {wanted!r}, expected host; unset it to prepare pictures on the GPU")
    detector = engines["detector"]
    if not isinstance(detector, QueuingEngine):
        return HostPictures()
    if wanted:
        return HostPictures("EDGEKD_PICTURES is host")
    from edgekd.runtime.cuda import open_cuda
    from edgekd.runtime.cuda_runtime import CudaRuntime
    from edgekd.runtime.device_pictures import DevicePictures
    from edgekd.runtime.picture_kernels import open_kernels

    try:
        cuda = open_cuda()
        if not isinstance(cuda, CudaRuntime):
            raise BackendUnavailable("PyCUDA launches no kernels here; unset EDGEKD_CUDA")
        for name, tensor, dtype in (("detector", IMAGES, "f4"), ("encoder", IMAGE, "f4"), ("segmenter", CROPS, "u1")):
            engine = engines.get(name)  # type: ignore[call-overload]
            _check_input(engine, tensor, np.dtype(dtype))
        return DevicePictures(cuda, open_kernels(cuda), detector.device_input(IMAGES, (1,)).lane)
    except (BackendUnavailable, BuildError, CudaError) as error:
        reason = str(error).removesuffix(".")
        _LOG.warning("pictures are prepared on the host, not on the GPU: %s", reason)
        return HostPictures(reason)


def where_prepared(pictures: Pictures) -> str:
    """Say where this machine prepares pictures, and why not on its GPU."""
    if pictures.on_device:
        return "pictures: prepared on the GPU, from one upload"
    return f"pictures: prepared on the host, {pictures.reason or 'because the engines are there'}"


def _check_input(engine: Engine | None, name: str, dtype: np.dtype[np.generic]) -> None:
    """Refuse a network that takes another type than the kernels write."""
    if isinstance(engine, QueuingEngine) and (found := engine.device_input(name, (1,)).dtype) != dtype:
        raise BackendUnavailable(f"the input {name} is {found}, and the kernels write {dtype}")
