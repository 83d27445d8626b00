"""What an engine needs of CUDA, as a protocol on plain integers (addresses and handles), and its error.

`cuda_runtime` implements it on libcudart, `cuda_pycuda` on PyCUDA; `cuda` chooses between them.
"""

from __future__ import annotations

from typing import Protocol


class Cuda(Protocol):
    """What an engine asks of CUDA; handles and addresses are integers, sizes are bytes, times are milliseconds."""

    def compute_capability(self) -> str:
        """Return the compute capability of GPU 0, such as "8.7"."""

    def n_multiprocessors(self) -> int:
        """Return how many GPU 0 has: 8 on an Orin Nano and 16 on an AGX Orin, which are both 8.7."""

    def allocate(self, n_bytes: int) -> int:
        """Return the address of device memory."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def allocate_pinned(self, n_bytes: int) -> int:
        """Return the address of page-locked host memory, from which copies run asynchronously."""

    def free_pinned(self, address: int) -> None:
        """Give page-locked host memory back."""

    def copy_to_device(self, device: int, host: int, n_bytes: int, stream: int) -> None:
        """Queue a copy from page-locked host memory."""

    def copy_to_host(self, host: int, device: int, n_bytes: int, stream: int) -> None:
        """Queue a copy to page-locked host memory."""

    def create_stream(self) -> int:
        """Return a stream that does not wait for the default stream."""

    def synchronize(self, stream: int) -> None:
        """Wait until everything queued in a stream is done."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""

    def create_event(self) -> int:
        """Return an event with timing."""

    def record(self, event: int, stream: int) -> None:
        """Queue an event."""

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the time between two events that are done."""

    def destroy_event(self, event: int) -> None:
        """Give an event back."""

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues in a stream from here on, instead of running it."""

    def end_capture(self, stream: int) -> int:
        """Return an executable graph of what was queued since `begin_capture`."""

    def abort_capture(self, stream: int) -> None:
        """Leave a recording that failed, so that the stream can be used again."""

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""


class CudaError(RuntimeError):
    """A CUDA call failed: a bug, or a device that fell over; not a user's mistake."""
