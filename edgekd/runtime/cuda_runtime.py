"""The CUDA runtime calls that an engine needs, through ctypes, so that a device needs no CUDA package.

A loaded libcudart goes in, `CudaRuntime` comes out: the protocol of `cuda_calls`.
"""

from __future__ import annotations

import ctypes

from edgekd.errors import BackendUnavailable
from edgekd.runtime.cuda_calls import CudaError

# Values of enumerations and flags in driver_types.h; the same in CUDA 11, 12 and 13.
_HOST_TO_DEVICE = 1
_DEVICE_TO_HOST = 2
_DEVICE_TO_DEVICE = 3
_ATTRIBUTE_MULTIPROCESSORS = 16
_ATTRIBUTE_INTEGRATED = 18
_ATTRIBUTE_CAN_MAP = 19
_ATTRIBUTE_MAJOR = 75
_ATTRIBUTE_MINOR = 76
_STREAM_NON_BLOCKING = 1
_HOST_ALLOC_MAPPED = 2
_CAPTURE_THREAD_LOCAL = 1
_OUT_OF_MEMORY = 2

_ADDRESS = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[object, ...]] = {
    "cudaGetDeviceCount": (ctypes.POINTER(ctypes.c_int),),
    "cudaDeviceGetAttribute": (ctypes.POINTER(ctypes.c_int), ctypes.c_int, ctypes.c_int),
    "cudaMalloc": (ctypes.POINTER(_ADDRESS), ctypes.c_size_t),
    "cudaFree": (_ADDRESS,),
    "cudaMallocHost": (ctypes.POINTER(_ADDRESS), ctypes.c_size_t),
    "cudaFreeHost": (_ADDRESS,),
    "cudaHostAlloc": (ctypes.POINTER(_ADDRESS), ctypes.c_size_t, ctypes.c_uint),
    "cudaHostGetDevicePointer": (ctypes.POINTER(_ADDRESS), _ADDRESS, ctypes.c_uint),
    "cudaMemcpyAsync": (_ADDRESS, _ADDRESS, ctypes.c_size_t, ctypes.c_int, _ADDRESS),
    "cudaStreamCreateWithFlags": (ctypes.POINTER(_ADDRESS), ctypes.c_uint),
    "cudaStreamSynchronize": (_ADDRESS,),
    "cudaStreamDestroy": (_ADDRESS,),
    "cudaStreamWaitEvent": (_ADDRESS, _ADDRESS, ctypes.c_uint),
    "cudaEventCreate": (ctypes.POINTER(_ADDRESS),),
    "cudaEventRecord": (_ADDRESS, _ADDRESS),
    "cudaEventSynchronize": (_ADDRESS,),
    "cudaEventElapsedTime": (ctypes.POINTER(ctypes.c_float), _ADDRESS, _ADDRESS),
    "cudaEventDestroy": (_ADDRESS,),
    "cudaStreamBeginCapture": (_ADDRESS, ctypes.c_int),
    "cudaStreamEndCapture": (_ADDRESS, ctypes.POINTER(_ADDRESS)),
    "cudaGraphInstantiateWithFlags": (ctypes.POINTER(_ADDRESS), _ADDRESS, ctypes.c_ulonglong),
    "cudaGraphLaunch": (_ADDRESS, _ADDRESS),
    "cudaGraphDestroy": (_ADDRESS,),
    "cudaGraphExecDestroy": (_ADDRESS,),
}


class CudaRuntime:
    """`Cuda` on a loaded libcudart."""

    def __init__(self, library: ctypes.CDLL) -> None:
        """Declare the signatures of all calls.

        Raises:
            AttributeError: the library lacks a call (CUDA older than 11.4).
        """
        self._library = library
        for name, arguments in _SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (ctypes.c_int,), ctypes.c_char_p

    def count_devices(self) -> int:
        """Return the number of GPUs that CUDA can use.

        Raises:
            CudaError: there is none, or no driver, or one too old for this libcudart.
        """
        count = ctypes.c_int()
        self._call("cudaGetDeviceCount", ctypes.byref(count))
        return count.value

    def compute_capability(self) -> str:
        """Return the compute capability of GPU 0, such as "8.7"."""
        return f"{self._attribute(_ATTRIBUTE_MAJOR)}.{self._attribute(_ATTRIBUTE_MINOR)}"

    def n_multiprocessors(self) -> int:
        """Return how many multiprocessors GPU 0 has."""
        return self._attribute(_ATTRIBUTE_MULTIPROCESSORS)

    def allocate(self, n_bytes: int) -> int:
        """Return the address of device memory."""
        return self._create("cudaMalloc", n_bytes)

    def free(self, address: int) -> None:
        """Give device memory back."""
        self._call("cudaFree", address)

    def allocate_pinned(self, n_bytes: int) -> int:
        """Return the address of page-locked host memory, from which copies run asynchronously."""
        return self._create("cudaMallocHost", n_bytes)

    def free_pinned(self, address: int) -> None:
        """Give page-locked host memory back."""
        self._call("cudaFreeHost", address)

    def shares_memory(self) -> bool:
        """Say whether the GPU works in the memory of the host, as on a Jetson, where a copy to it is a waste."""
        return bool(self._attribute(_ATTRIBUTE_INTEGRATED) and self._attribute(_ATTRIBUTE_CAN_MAP))

    def allocate_mapped(self, n_bytes: int) -> tuple[int, int]:
        """Return the addresses, for the host and for the GPU, of page-locked memory; `free_pinned` takes the first."""
        host = self._create("cudaHostAlloc", n_bytes, _HOST_ALLOC_MAPPED)
        return host, self._create("cudaHostGetDevicePointer", host, 0)

    def copy_to_device(self, device: int, host: int, n_bytes: int, stream: int) -> None:
        """Queue a copy from page-locked host memory."""
        self._call("cudaMemcpyAsync", device, host, n_bytes, _HOST_TO_DEVICE, stream)

    def copy_to_host(self, host: int, device: int, n_bytes: int, stream: int) -> None:
        """Queue a copy to page-locked host memory."""
        self._call("cudaMemcpyAsync", host, device, n_bytes, _DEVICE_TO_HOST, stream)

    def copy_on_device(self, to: int, source: int, n_bytes: int, stream: int) -> None:
        """Queue a copy within device memory, against which a kernel's bandwidth is measured."""
        self._call("cudaMemcpyAsync", to, source, n_bytes, _DEVICE_TO_DEVICE, stream)

    def create_stream(self) -> int:
        """Return a stream that does not wait for the default stream."""
        return self._create("cudaStreamCreateWithFlags", _STREAM_NON_BLOCKING)

    def synchronize(self, stream: int) -> None:
        """Wait until everything queued in a stream is done."""
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def create_event(self) -> int:
        """Return an event with timing."""
        return self._create("cudaEventCreate")

    def record(self, event: int, stream: int) -> None:
        """Queue an event."""
        self._call("cudaEventRecord", event, stream)

    def wait_event(self, stream: int, event: int) -> None:
        """Let what is queued in a stream from here on wait for an event of another stream; the host does not wait."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Wait on the host until an event is done."""
        self._call("cudaEventSynchronize", event)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Return the time between two events that are done."""
        milliseconds = ctypes.c_float()
        self._call("cudaEventElapsedTime", ctypes.byref(milliseconds), start, end)
        return milliseconds.value

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", event)

    def begin_capture(self, stream: int) -> None:
        """Record what this thread queues in a stream from here on, instead of running it."""
        self._call("cudaStreamBeginCapture", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Return an executable graph of what was queued since `begin_capture`."""
        graph = _ADDRESS()
        self._call("cudaStreamEndCapture", stream, ctypes.byref(graph))
        try:
            return self._create("cudaGraphInstantiateWithFlags", graph.value, 0)
        finally:
            self._call("cudaGraphDestroy", graph.value)

    def abort_capture(self, stream: int) -> None:
        """Leave a recording that failed, so that the stream can be used again."""
        graph = _ADDRESS()
        self._library.cudaStreamEndCapture(stream, ctypes.byref(graph))  # fails when the recording is already over
        if graph.value is not None:
            self._call("cudaGraphDestroy", graph.value)

    def launch_graph(self, graph: int, stream: int) -> None:
        """Queue a graph."""
        self._call("cudaGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""
        self._call("cudaGraphExecDestroy", graph)

    def _attribute(self, attribute: int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, 0)
        return value.value

    def _create(self, name: str, *arguments: int | None) -> int:
        """Call a function whose first argument receives a handle or an address."""
        handle = _ADDRESS()
        self._call(name, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._library, name)(*arguments)
        if code == _OUT_OF_MEMORY:
            raise BackendUnavailable(
                f"GPU memory is full ({name}); close what else uses it, or build for smaller inputs or fewer boxes"
            )
        if code != 0:
            reason = self._library.cudaGetErrorString(code).decode()
            raise CudaError(f"{name} failed: {reason} (cudaError {code})")
