"""TensorRT and TensorRT-RTX on an NVIDIA GPU: a plan goes in; one runtime path for 8.6 to 11.x, by tensor names only.

Buffers are allocated once, for the largest shapes of the plan's profile, so addresses never change; each input shape
gets its own execution context and, from its second run on, its own CUDA graph (a graph is bound to the state of the
context that it was recorded from).

No GPU has run this file yet. Its buffers, streams, events and graphs are executed in the tests against a host
implementation of the CUDA calls and an engine that computes on the CPU; its TensorRT names are checked against the
bindings of every version. `benchmarks/verify_tensorrt.py` is the check to run on a device.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BackendUnavailable, BundleError, InputError
from edgekd.runtime.cuda import open_cuda
from edgekd.runtime.cuda_calls import Cuda, CudaError
from edgekd.runtime.engines import Array
from edgekd.runtime.tensorrt_library import TensorRtLibrary, tensorrt_library

if TYPE_CHECKING:
    from tensorrt import DataType, ICudaEngine, IExecutionContext, Runtime, TensorIOMode

_LOG = logging.getLogger("edgekd.tensorrt")

# By the name of the enum's member: `trt.nptype` of old versions fails with newer NumPy, and not all of them have INT64.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}
# Every shape keeps a context with its own scratch memory on the GPU: one more than the box buckets of a bundle.
MAX_SHAPES = 8

Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Plan:
    """What clones share: the deserialized engine and all that must outlive it."""

    library: TensorRtLibrary
    cuda: Cuda
    runtime: Runtime
    engine: ICudaEngine


@dataclass(frozen=True)
class _Tensor:
    """One input or output: its memory on the GPU and its page-locked twin, both for the largest shape."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    device: int
    pinned: NDArray[np.uint8]

    def view(self, shape: Shape) -> Array:
        """Return the page-locked memory as an array of this shape."""
        n_bytes = int(np.prod(shape)) * self.dtype.itemsize
        return self.pinned[:n_bytes].view(self.dtype).reshape(shape)


@dataclass
class _Bound:
    """An execution context that was set up for one combination of input shapes."""

    context: IExecutionContext
    output_shapes: dict[str, Shape]
    has_run: bool = False
    graph: int | None = None


class TensorRtEngine:
    """One plan, one stream, one set of buffers."""

    def __init__(self, plan: _Plan, use_graphs: bool) -> None:
        self._plan = plan
        self._use_graphs = use_graphs
        self._times_ms: dict[str, float] = {}
        self._bounds: dict[tuple[Shape, ...], _Bound] = {}
        cuda = plan.cuda
        with ExitStack() as resources:
            self._tensors = _allocate(plan, resources)
            self._stream = cuda.create_stream()
            resources.callback(cuda.destroy_stream, self._stream)
            self._events = [cuda.create_event() for _ in range(4)]
            for event in self._events:
                resources.callback(cuda.destroy_event, event)
            resources.callback(_drop_all, cuda, self._bounds)
            self._resources = resources.pop_all()
        weakref.finalize(self, self._resources.close)

    @classmethod
    def open(cls, path: Path, rtx: bool, use_graphs: bool = True) -> TensorRtEngine:
        """Load a plan.

        Args:
            path: the plan file.
            rtx: it was built by TensorRT-RTX.
            use_graphs: replay a CUDA graph from the second run of a shape on, which spares launching kernel by kernel.

        Raises:
            BackendUnavailable: the library or a GPU is not on this machine.
            BundleError: the plan is missing, damaged, or for another GPU or version.
        """
        library = tensorrt_library(rtx)
        cuda = open_cuda()
        trt = library.api
        name = "tensorrt-rtx" if rtx else "tensorrt"
        cure = f"build it here with: edgekd build-engine --backend {name}"
        if not path.is_file() or path.stat().st_size == 0:
            raise BundleError(f"{path} is missing or empty, expected a TensorRT plan; {cure}")
        library.forget_errors()
        try:
            runtime: Runtime = trt.Runtime(library.logger)
        except TypeError as error:  # what the bindings make of a null pointer
            raise BackendUnavailable(
                f"TensorRT cannot start ({library.last_error()}); see what is missing with: edgekd doctor"
            ) from error
        engine: ICudaEngine | None = runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise BundleError(
                f"TensorRT cannot load {path} ({library.last_error()}): damaged, or of another GPU or version; {cure}"
            )
        return cls(_Plan(library, cuda, runtime, engine), use_graphs)

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`, from CUDA events: `h2d`, `gpu_compute`, `d2h`."""
        return self._times_ms

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once and wait.

        Args:
            feeds: C-contiguous arrays by input name, in the plan's dtypes, with shapes inside its profile.

        Returns:
            Arrays by output name in page-locked memory, overwritten by the next call.

        Raises:
            InputError: an input is missing, unknown, or has another dtype or shape than the plan takes.
            CudaError: the GPU failed.
        """
        bound = self._bind(feeds)
        cuda, stream = self._plan.cuda, self._stream
        start, copied_in, computed, copied_out = self._events
        for tensor in self._inputs():
            np.copyto(tensor.view(feeds[tensor.name].shape), feeds[tensor.name])
        cuda.record(start, stream)
        for tensor in self._inputs():
            cuda.copy_to_device(tensor.device, tensor.pinned.ctypes.data, feeds[tensor.name].nbytes, stream)
        cuda.record(copied_in, stream)
        self._enqueue(bound)
        cuda.record(computed, stream)
        outputs = {tensor.name: tensor.view(bound.output_shapes[tensor.name]) for tensor in self._outputs()}
        for tensor in self._outputs():
            cuda.copy_to_host(tensor.pinned.ctypes.data, tensor.device, outputs[tensor.name].nbytes, stream)
        cuda.record(copied_out, stream)
        cuda.synchronize(stream)
        self._times_ms = {
            "h2d": cuda.elapsed_ms(start, copied_in),
            "gpu_compute": cuda.elapsed_ms(copied_in, computed),
            "d2h": cuda.elapsed_ms(computed, copied_out),
        }
        return outputs

    def clone(self) -> TensorRtEngine:
        """Return an engine with its own contexts, stream and buffers on the same weights."""
        return TensorRtEngine(self._plan, self._use_graphs)

    def close(self) -> None:
        """Give graphs, contexts, stream and buffers back; a second call does nothing."""
        self._resources.close()

    def _inputs(self) -> list[_Tensor]:
        return [tensor for tensor in self._tensors if tensor.is_input]

    def _outputs(self) -> list[_Tensor]:
        return [tensor for tensor in self._tensors if not tensor.is_input]

    def _bind(self, feeds: Mapping[str, Array]) -> _Bound:
        """Return the context for these shapes; the one unused for longest makes room for a new one."""
        _check_feeds(self._inputs(), feeds)
        key = tuple(feeds[tensor.name].shape for tensor in self._inputs())
        bound = self._bounds.pop(key, None)
        if bound is None:
            if len(self._bounds) >= MAX_SHAPES:
                _drop(self._plan.cuda, self._bounds.pop(next(iter(self._bounds))))
            bound = self._create_bound(key)
        self._bounds[key] = bound
        return bound

    def _create_bound(self, shapes: tuple[Shape, ...]) -> _Bound:
        context: IExecutionContext = self._plan.engine.create_execution_context()
        if context is None:
            raise CudaError(f"TensorRT cannot make an execution context: {self._plan.library.last_error()}")
        for tensor, shape in zip(self._inputs(), shapes, strict=True):
            if not context.set_input_shape(tensor.name, shape):
                raise InputError(
                    f"input {tensor.name} has shape {shape}, outside of the plan's profile "
                    f"{_profile(self._plan.engine, tensor.name)}; build the bundle with shapes that include it"
                )
        for tensor in self._tensors:
            context.set_tensor_address(tensor.name, tensor.device)
        return _Bound(
            context, {tensor.name: tuple(context.get_tensor_shape(tensor.name)) for tensor in self._outputs()}
        )

    def _enqueue(self, bound: _Bound) -> None:
        if bound.graph is None and bound.has_run and self._use_graphs:
            self._record_graph(bound)
        if bound.graph is not None:
            self._plan.cuda.launch_graph(bound.graph, self._stream)
            return
        self._execute(bound.context)
        bound.has_run = True

    def _record_graph(self, bound: _Bound) -> None:
        """Record the second run; the first one has allocated and loaded what may not happen during a recording."""
        cuda = self._plan.cuda
        try:
            cuda.begin_capture(self._stream)
            self._execute(bound.context)
            bound.graph = cuda.end_capture(self._stream)
        except CudaError as error:
            cuda.abort_capture(self._stream)
            _LOG.warning("this plan runs without CUDA graphs: %s", error)
            self._use_graphs = False

    def _execute(self, context: IExecutionContext) -> None:
        self._plan.library.forget_errors()
        if not context.execute_async_v3(self._stream):
            raise CudaError(f"TensorRT cannot run the plan: {self._plan.library.last_error()}")


def _allocate(plan: _Plan, resources: ExitStack) -> list[_Tensor]:
    """Allocate every input and output for its largest shape; `resources` frees them, also after an error."""
    shapes = _largest_shapes(plan.engine)
    tensors = []
    for name, shape in shapes.items():
        dtype = _dtype(plan.engine, name)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        device = plan.cuda.allocate(n_bytes)
        resources.callback(plan.cuda.free, device)
        pinned = plan.cuda.allocate_pinned(n_bytes)
        resources.callback(plan.cuda.free_pinned, pinned)
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * n_bytes).from_address(pinned))
        tensors.append(_Tensor(name, _is_input(plan.engine, name), dtype, device, memory))
    return tensors


def _largest_shapes(engine: ICudaEngine) -> dict[str, Shape]:
    """Return the shape of every input and output when all inputs are as large as the profile allows."""
    names: list[str] = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    context: IExecutionContext = engine.create_execution_context()
    for name in names:
        if _is_input(engine, name):
            context.set_input_shape(name, _profile(engine, name)[2])
    shapes = {name: tuple(context.get_tensor_shape(name)) for name in names}
    unknown = [name for name, shape in shapes.items() if min(shape, default=1) < 0]
    if unknown:
        raise BundleError(
            f"output {unknown[0]} of the plan has a size that depends on its content; export the graph again"
        )
    return shapes


def _is_input(engine: ICudaEngine, name: str) -> bool:
    mode: TensorIOMode = engine.get_tensor_mode(name)
    return bool(mode.name == "INPUT")


def _dtype(engine: ICudaEngine, name: str) -> np.dtype[Any]:
    dtype: DataType = engine.get_tensor_dtype(name)
    if dtype.name not in _DTYPES:
        raise BundleError(
            f"tensor {name} of the plan is {dtype.name}, expected one of {', '.join(_DTYPES)}; export it again"
        )
    return np.dtype(_DTYPES[dtype.name])


def _profile(engine: ICudaEngine, name: str) -> list[Shape]:
    """Return min, opt and max of an input's first profile; all three are its own shape when that is static."""
    static: Shape = tuple(engine.get_tensor_shape(name))
    if -1 not in static:
        return [static] * 3
    return [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]


def _check_feeds(inputs: list[_Tensor], feeds: Mapping[str, Array]) -> None:
    expected = {tensor.name: tensor.dtype for tensor in inputs}
    if set(feeds) != set(expected):
        raise InputError(f"the plan was given {', '.join(feeds)}, expected the inputs {', '.join(expected)}")
    for name, array in feeds.items():
        if array.dtype != expected[name]:
            raise InputError(f"input {name} has dtype {array.dtype}, expected {expected[name]}")


def _drop(cuda: Cuda, bound: _Bound) -> None:
    if bound.graph is not None:
        cuda.destroy_graph(bound.graph)


def _drop_all(cuda: Cuda, bounds: dict[tuple[Shape, ...], _Bound]) -> None:
    while bounds:
        _drop(cuda, bounds.popitem()[1])
