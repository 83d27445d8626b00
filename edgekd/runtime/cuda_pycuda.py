"""`Cuda` on PyCUDA, for programs that already live in it; chosen with EDGEKD_CUDA=pycuda, never by default.

PyCUDA has no wheels, wants a whole CUDA toolkit to compile against, and leaves contexts to the caller. Here it works on
the primary context of the GPU, which TensorRT and every other library of the process use; it is made current around
each call and never left behind. It records no graphs, so plans run kernel by kernel and say so once.

No GPU has run this file; a test drives it with a stand-in for `pycuda.driver`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import BackendUnavailable
from edgekd.runtime.cuda_calls import CudaError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class PyCuda:
    """The protocol `Cuda`; PyCUDA's objects are kept here under the integers that the protocol hands out."""

    def __init__(self) -> None:
        """Retain the primary context of GPU 0.

        Raises:
            BackendUnavailable: PyCUDA is not installed, or no GPU answers.
        """
        try:
            import pycuda.driver as driver
        except ImportError as error:
            raise BackendUnavailable(
                f"PyCUDA cannot be imported ({error}); use: pip install edgekd[pycuda], or unset EDGEKD_CUDA"
            ) from error
        try:
            driver.init()
            self._device = driver.Device(0)
            self._context = self._device.retain_primary_context()
        except driver.Error as error:
            raise BackendUnavailable(f"no NVIDIA GPU answers (PyCUDA: {error}); check with nvidia-smi") from error
        self._driver = driver
        self._memory: dict[int, Any] = {}
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}
        self._event_numbers = count(1)

    def compute_capability(self) -> str:
        """Return the compute capability of GPU 0, such as "8.7"."""
        major, minor = self._device.compute_capability()
        return f"{major}.{minor}"

    def n_multiprocessors(self) -> int:
        """Return how many multiprocessors GPU 0 has."""
        return int(self._device.get_attribute(self._driver.device_attribute.MULTIPROCESSOR_COUNT))

    def allocate(self, n_bytes: int) -> int:
        """Return the address of device memory."""
        with self._current():
            memory = self._driver.mem_alloc(n_bytes)
        self._memory[int(memory)] = memory
        return int(memory)

    def free(self, address: int) -> None:
        """Give device memory back."""
        with self._current():
            self._memory.pop(address).free()

    def allocate_pinned(self, n_bytes: int) -> int:
        """Return the address of page-locked host memory, from which copies run asynchronously."""
        with self._current():
            memory = self._driver.pagelocked_empty(n_bytes, np.uint8)
        self._pinned[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def free_pinned(self, address: int) -> None:
        """Give page-locked host memory back: PyCUDA does it when the last reference goes."""
        with self._current():
            del self._pinned[address]

    def copy_to_device(self, device: int, host: int, n_bytes: int, stream: int) -> None:
        """Queue a copy from page-locked host memory."""
        with self._current():
            self._driver.memcpy_htod_async(device, self._pinned[host][:n_bytes], self._streams[stream])

    def copy_to_host(self, host: int, device: int, n_bytes: int, stream: int) -> None:
        """Queue a copy to page-locked host memory."""
        with self._current():
            self._driver.memcpy_dtoh_async(self._pinned[host][:n_bytes], device, self._streams[stream])

    def create_stream(self) -> int:
        """Return a stream."""
        with self._current():
            stream = self._driver.Stream()
        self._streams[stream.handle] = stream
        return int(stream.handle)

    def synchronize(self, stream: int) -> None:
        """Wait until everything queued in a stream is done."""
        with self._current():
            self._streams[stream].synchronize()

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back: PyCUDA does it when the last reference goes."""
        with self._current():
            del self._streams[stream]

    def create_event(self) -> int:
        """Return an event with timing."""
        number = next(self._event_numbers)
        with self._current():
            self._events[number] = self._driver.Event()
        return number

    def record(self, event: int, stream: int) -> None:
        """Queue an event."""
        with self._current():
            self._events[event].record(self._streams[stream])

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the time between two events that are done."""
        with self._current():
            return float(self._events[end].time_since(self._events[start]))

    def destroy_event(self, event: int) -> None:
        """Give an event back: PyCUDA does it when the last reference goes."""
        with self._current():
            del self._events[event]

    def begin_capture(self, stream: int) -> None:
        """Refuse: PyCUDA has no graphs.

        Raises:
            CudaError: always.
        """
        raise CudaError("PyCUDA records no graphs")

    def end_capture(self, stream: int) -> int:
        """Refuse, as `begin_capture`.

        Raises:
            CudaError: always.
        """
        raise CudaError("PyCUDA records no graphs")

    def abort_capture(self, stream: int) -> None:
        """Do nothing: no recording ever began."""

    def launch_graph(self, graph: int, stream: int) -> None:
        """Refuse, as `begin_capture`.

        Raises:
            CudaError: always.
        """
        raise CudaError("PyCUDA records no graphs")

    def destroy_graph(self, graph: int) -> None:
        """Do nothing: there are none."""

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the primary context current in this thread for one call."""
        self._context.push()
        try:
            yield
        finally:
            self._context.pop()
