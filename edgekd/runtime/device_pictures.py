"""A picture on the GPU: uploaded once as it is, resized and normalised there into the inputs of all networks.

On an integrated GPU the host writes into memory that the GPU reads, and nothing is copied. Events order the streams:
a kernel of another lane waits for the upload, and an upload waits for the kernels that still read the last picture.
"""

from __future__ import annotations

import ctypes
import weakref
from contextlib import ExitStack

import numpy as np

from edgekd.errors import BackendUnavailable
from edgekd.graphs import CROPS
from edgekd.model_set import CropInput, ImageInput
from edgekd.runtime.cuda_runtime import CudaRuntime
from edgekd.runtime.engines import DeviceArray, Engine, QueuingEngine, Tensor
from edgekd.runtime.engines.lane import Lane
from edgekd.runtime.picture_job import crops_launch, letterbox_launch
from edgekd.runtime.picture_kernels import PictureKernels
from edgekd.runtime.preprocess import Placement, place
from edgekd.runtime.turned_crops import Turns, cut_turned
from edgekd.types import Int32Array, UInt8Array


class _Written:
    """Memory that the host fills and the GPU reads; it grows to the largest content."""

    def __init__(self, cuda: CudaRuntime) -> None:
        self._cuda, self._is_mapped = cuda, cuda.shares_memory()
        self._n_bytes = self._host = self.device = 0

    def fill(self, content: np.ndarray, stream: int) -> None:
        """Take an array over; on a discrete GPU a copy is queued. The GPU must be done with the last content."""
        if content.nbytes > self._n_bytes:
            self.close()
            self._allocate(content.nbytes)
        view = np.ctypeslib.as_array((ctypes.c_uint8 * content.nbytes).from_address(self._host))
        np.copyto(view.view(content.dtype).reshape(content.shape), content)
        if not self._is_mapped:
            self._cuda.copy_to_device(self.device, self._host, content.nbytes, stream)

    def close(self) -> None:
        """Give the memory back."""
        if self._host and not self._is_mapped:
            self._cuda.free(self.device)
        if self._host:
            self._cuda.free_pinned(self._host)
        self._n_bytes = self._host = self.device = 0

    def _allocate(self, n_bytes: int) -> None:
        if self._is_mapped:
            self._host, self.device = self._cuda.allocate_mapped(n_bytes)
        else:
            self.device = self._cuda.allocate(n_bytes)
            try:
                self._host = self._cuda.allocate_pinned(n_bytes)
            except BackendUnavailable:
                self._cuda.free(self.device)
                raise
        self._n_bytes = n_bytes


class DevicePictures:
    """Inputs made by kernels on the streams of the networks; see `edgekd.runtime.pictures.Pictures`."""

    on_device, reason = True, ""

    def __init__(self, cuda: CudaRuntime, kernels: PictureKernels, lane: Lane) -> None:
        """Prepare the uploads, which go through the stream of `lane`."""
        self.number = 0
        self._cuda, self._kernels, self._lane = cuda, kernels, lane
        self._picture, self._windows = _Written(cuda), _Written(cuda)
        self._source, self._picture_px = np.zeros((0, 0, 3), np.uint8), (0, 0)
        self._reads: dict[Lane, int] = {}  # the event after the last kernel of a lane that reads the picture
        with ExitStack() as resources:
            lane.join(0)
            resources.callback(lane.leave)
            self._uploaded = cuda.create_event()
            resources.callback(cuda.destroy_event, self._uploaded)
            for memory in (self._picture, self._windows):
                resources.callback(memory.close)
            resources.callback(cuda.synchronize, lane.stream)
            self._resources = resources.pop_all()
        weakref.finalize(self, self._resources.close)

    def take(self, picture: UInt8Array) -> None:
        """Upload a picture; what still reads the last one is waited for."""
        for event in (self._uploaded, *self._reads.values()):
            self._cuda.synchronize_event(event)
        self._picture.fill(np.ascontiguousarray(picture), self._lane.stream)
        self._cuda.record(self._uploaded, self._lane.stream)
        self._source, self._picture_px = picture, (picture.shape[0], picture.shape[1])
        self.number += 1

    def letterbox(self, spec: ImageInput, engine: Engine, name: str) -> tuple[Tensor, Placement]:
        """Queue the kernel that writes a network's input in the network's own memory."""
        placement = place(self._picture_px, spec)
        to = _memory_of(engine, name, (1, 3, *placement.input_px))
        self._join(to.lane)
        launch = letterbox_launch(placement, spec)
        self._kernels.letterbox(self._picture.device, to.address, launch, to.lane.stream)
        self._cuda.record(self._reads[to.lane], to.lane.stream)
        return to, placement

    def crops(self, windows: Int32Array, spec: CropInput, engine: Engine, turns: Turns | None = None) -> Tensor:
        """Queue the kernel that cuts windows out of the picture; turned ones are cut on the host."""
        if turns is not None:
            return cut_turned(self._source, windows, turns, spec)
        to = _memory_of(engine, CROPS, (len(windows), spec.side_px, spec.side_px, 3))
        self._join(to.lane)
        self._cuda.synchronize_event(self._reads[to.lane])  # the last windows may be overwritten
        self._windows.fill(windows, to.lane.stream)
        launch = crops_launch(self._picture_px, windows, spec)
        self._kernels.crops(self._picture.device, self._windows.device, to.address, launch, to.lane.stream)
        self._cuda.record(self._reads[to.lane], to.lane.stream)
        return to

    def close(self) -> None:
        """Wait for the GPU and give memory and events back; a second call does nothing."""
        self._resources.close()

    def _join(self, lane: Lane) -> None:
        """Let a lane wait for the upload; at the first time it is kept open until this closes."""
        if lane not in self._reads:
            lane.join(0)
            self._resources.callback(lane.leave)
            self._reads[lane] = self._cuda.create_event()
            self._resources.callback(self._cuda.destroy_event, self._reads[lane])
            self._resources.callback(self._cuda.synchronize, lane.stream)
        if lane is not self._lane:
            self._cuda.wait_event(lane.stream, self._uploaded)


def _memory_of(engine: Engine, name: str, shape: tuple[int, ...]) -> DeviceArray:
    if not isinstance(engine, QueuingEngine):
        raise BackendUnavailable(f"the network with the input {name} is not on the GPU, where the picture is")
    return engine.device_input(name, shape)
