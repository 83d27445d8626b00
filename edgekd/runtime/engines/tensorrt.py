"""TensorRT and TensorRT-RTX on an NVIDIA GPU: a plan goes in; one runtime path for 8.6 to 11.x, by tensor names only.

Buffers are allocated once, for the largest shapes of the plan's profile, so addresses never change; each combination of
input shapes gets its own execution context and, from its second run on, its own CUDA graph (a graph is bound to the
state of the context that it was recorded from). All contexts use the scratch memory of one `Lane`.

No GPU has run this file yet. Its buffers, streams, events and graphs are executed in the tests against a host
implementation of the CUDA calls and a functional stand-in for TensorRT; its TensorRT names are checked against the
bindings of every version. `benchmarks/verify_tensorrt.py` is the check to run on a device.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.runtime.cuda_calls import Cuda, CudaError
from edgekd.runtime.engines import Array, DeviceArray, Engine, Ports, Tensor
from edgekd.runtime.engines.lane import Lane
from edgekd.runtime.engines.tensorrt_plan import (
    Plan,
    Shape,
    dtype_of,
    is_input,
    largest_shapes,
    open_plan,
    profile_of,
)

if TYPE_CHECKING:
    from tensorrt import IExecutionContext

_LOG = logging.getLogger("edgekd.tensorrt")
# A context without scratch memory is small; the limit is for callers with ever new shapes.
MAX_SHAPES = 8


@dataclass
class _Buffer:
    """One input or output: its memory on the GPU, and its page-locked twin once the host wants it."""

    name: str
    is_input: bool
    dtype: np.dtype[Any]
    n_bytes: int
    device: int
    pinned: NDArray[np.uint8] | None = None


@dataclass
class _Bound:
    """An execution context that was set up for one combination of input shapes and addresses."""

    context: IExecutionContext
    output_shapes: dict[str, Shape]
    has_run: bool = False
    graph: int | None = None


class TensorRtEngine:
    """One plan and one set of buffers in a lane."""

    def __init__(self, plan: Plan, use_graphs: bool, lane: Lane) -> None:
        self._plan = plan
        self._use_graphs = use_graphs
        self._lane = lane
        self._times_ms: dict[str, float] = {}
        self._is_pending = self._is_timed = False
        self._bounds: dict[tuple[tuple[Shape, int], ...], _Bound] = {}
        cuda = plan.cuda
        with ExitStack() as resources:
            lane.join(plan.memory.scratch_bytes(plan.engine))
            resources.callback(lane.leave)
            self._buffers = _allocate(plan, resources)
            resources.callback(_free_pinned, cuda, self._buffers)
            self._events = [cuda.create_event() for _ in range(4)]
            for event in self._events:
                resources.callback(cuda.destroy_event, event)
            resources.callback(_drop_all, cuda, self._bounds)
            resources.callback(cuda.synchronize, lane.stream)
            self._resources = resources.pop_all()
        weakref.finalize(self, self._resources.close)

    @classmethod
    def open(
        cls,
        path: Path,
        rtx: bool,
        use_graphs: bool = True,
        beside: Engine | None = None,
        contents: Sequence[bytes] = (),
    ) -> TensorRtEngine:
        """Load a plan.

        Args:
            path: the plan file.
            rtx: it was built by TensorRT-RTX.
            use_graphs: replay a CUDA graph from the second run of a shape on, which spares launching kernel by kernel.
            beside: another engine of the same thread, whose stream and scratch memory this one shares.
            contents: what the file holds, where it was read and checked before; empty reads it.

        Raises:
            BackendUnavailable: the library or a GPU is not on this machine, or its memory is full.
            BundleError: the plan is missing, damaged, or for another GPU or version.
        """
        plan = open_plan(path, rtx, contents)
        return cls(plan, use_graphs, _lane_of(plan, beside))

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last run, from CUDA events: `h2d`, `gpu_compute`, `d2h`; waits until it is done."""
        self._finish()
        return self._times_ms

    @property
    def ports(self) -> Ports:
        """Names of the inputs and outputs."""
        inputs, outputs = (frozenset(buffer.name for buffer in self._of_kind(side)) for side in (True, False))
        return Ports(inputs, outputs)

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
        """Run once and wait.

        Args:
            feeds: by input name, in the plan's dtypes, with shapes inside its profile: C-contiguous arrays, which are
                copied to the GPU, or outputs that other engines left there.

        Returns:
            Arrays by output name in page-locked memory, overwritten by the next call.

        Raises:
            InputError: an input is missing, unknown, or has another dtype or shape than the plan takes.
            CudaError: the GPU failed.
        """
        return self.start(feeds)()

    def start(self, feeds: Mapping[str, Tensor]) -> Callable[[], dict[str, Array]]:
        """Queue a run and the copies of its outputs; arguments and errors as for `infer`.

        Returns:
            A function that waits for the run and returns the outputs of `infer`.
        """
        bound = self._queue(feeds)
        cuda, stream = self._plan.cuda, self._lane.stream
        outputs = {}
        for buffer in self._of_kind(is_input=False):
            shape = bound.output_shapes[buffer.name]
            outputs[buffer.name] = self._host_view(buffer, shape)
            cuda.copy_to_host(outputs[buffer.name].ctypes.data, buffer.device, outputs[buffer.name].nbytes, stream)
        self._end()

        def finish() -> dict[str, Array]:
            self._finish()
            return outputs

        return finish

    def device_input(self, name: str, shape: Shape) -> DeviceArray:
        """Return this engine's own memory for an input of a shape, to be written on the stream of its lane.

        Raises:
            InputError: the plan has no such input, or none so large.
        """
        buffer = next((each for each in self._of_kind(is_input=True) if each.name == name), None)
        if buffer is None or int(np.prod(shape)) * buffer.dtype.itemsize > buffer.n_bytes:
            raise InputError(f"input {name} has shape {shape}, which the plan does not take; build the bundle again")
        return DeviceArray(buffer.device, shape, buffer.dtype, self._lane, lambda: self._read(buffer, shape))

    def infer_one(self, feeds: Mapping[str, Tensor], output: str) -> DeviceArray:
        """Queue a run and leave one output on the GPU, without a wait and without a copy; arguments as for `infer`.

        Returns:
            The output, for another engine or, with `numpy.asarray`, for the host; overwritten by the next call.
        """
        bound = self._queue(feeds)
        self._end()
        buffer = next(buffer for buffer in self._of_kind(is_input=False) if buffer.name == output)
        shape = bound.output_shapes[output]
        return DeviceArray(buffer.device, shape, buffer.dtype, self._lane, lambda: self._read(buffer, shape))

    def clone(self, beside: Engine | None = None) -> TensorRtEngine:
        """Return an engine with its own contexts and buffers on the same weights, in a new lane or that of `beside`."""
        return TensorRtEngine(self._plan, self._use_graphs, _lane_of(self._plan, beside))

    def close(self) -> None:
        """Give graphs, contexts and buffers back; a second call does nothing."""
        self._resources.close()

    def _of_kind(self, is_input: bool) -> list[_Buffer]:
        return [buffer for buffer in self._buffers if buffer.is_input == is_input]

    def _queue(self, feeds: Mapping[str, Tensor]) -> _Bound:
        """Queue the copies of the inputs and the network, between the first three events."""
        self._finish()
        bound = self._bind(feeds)
        cuda, stream = self._plan.cuda, self._lane.stream
        start, copied_in, computed, _ = self._events
        for buffer in self._of_kind(is_input=True):
            feed = feeds[buffer.name]
            if not isinstance(feed, DeviceArray):
                np.copyto(self._host_view(buffer, feed.shape), feed)
            elif feed.lane is not self._lane:
                cuda.synchronize(feed.lane.stream)
        self._is_pending, self._is_timed = True, False
        cuda.record(start, stream)
        for buffer in self._of_kind(is_input=True):
            feed = feeds[buffer.name]
            if not isinstance(feed, DeviceArray):
                view = self._host_view(buffer, feed.shape)
                cuda.copy_to_device(buffer.device, view.ctypes.data, view.nbytes, stream)
        cuda.record(copied_in, stream)
        self._enqueue(bound)
        cuda.record(computed, stream)
        return bound

    def _end(self) -> None:
        """Queue the last event; only a run that comes so far has times."""
        self._plan.cuda.record(self._events[3], self._lane.stream)
        self._is_timed = True

    def _finish(self) -> None:
        """Wait for the last run, after which its inputs may be overwritten and its events have times."""
        if not self._is_pending:
            return
        self._is_pending = False
        cuda = self._plan.cuda
        cuda.synchronize(self._lane.stream)
        if not self._is_timed:
            return
        names = ("h2d", "gpu_compute", "d2h")
        pairs = zip(names, self._events[:3], self._events[1:], strict=True)
        self._times_ms = {name: cuda.elapsed_ms(first, second) for name, first, second in pairs}

    def _host_view(self, buffer: _Buffer, shape: Shape) -> Array:
        """Return page-locked memory of a buffer as an array of this shape; it is allocated when first asked for."""
        if buffer.pinned is None:
            address = self._plan.cuda.allocate_pinned(buffer.n_bytes)
            buffer.pinned = np.ctypeslib.as_array((ctypes.c_uint8 * buffer.n_bytes).from_address(address))
        n_bytes = int(np.prod(shape)) * buffer.dtype.itemsize
        return buffer.pinned[:n_bytes].view(buffer.dtype).reshape(shape)

    def _read(self, buffer: _Buffer, shape: Shape) -> Array:
        """Copy an output that stayed on the GPU to the host."""
        view = self._host_view(buffer, shape)
        self._plan.cuda.copy_to_host(view.ctypes.data, buffer.device, view.nbytes, self._lane.stream)
        self._plan.cuda.synchronize(self._lane.stream)
        return view.copy()

    def _bind(self, feeds: Mapping[str, Tensor]) -> _Bound:
        """Return the context for these shapes; the one unused for longest makes room for a new one."""
        inputs = self._of_kind(is_input=True)
        _check_feeds(inputs, feeds)
        addresses = {
            buffer.name: feed.address if isinstance(feed := feeds[buffer.name], DeviceArray) else buffer.device
            for buffer in inputs
        }
        key = tuple((feeds[name].shape, address) for name, address in addresses.items())
        bound = self._bounds.pop(key, None)
        if bound is None:
            if len(self._bounds) >= MAX_SHAPES:
                _drop(self._plan.cuda, self._bounds.pop(next(iter(self._bounds))))
            bound = self._create_bound({name: feeds[name].shape for name in addresses}, addresses)
        self._bounds[key] = bound
        return bound

    def _create_bound(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> _Bound:
        context: IExecutionContext = self._plan.create_context()
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise InputError(
                    f"input {name} has shape {shape}, outside of the plan's profile "
                    f"{profile_of(self._plan.engine, name)}; build the bundle with shapes that include it"
                )
        self._plan.memory.give(context, *self._lane.scratch())
        for buffer in self._buffers:
            if not context.set_tensor_address(buffer.name, addresses.get(buffer.name, buffer.device)):
                raise CudaError(f"TensorRT refuses the memory of {buffer.name}: {self._plan.library.last_error()}")
        outputs = self._of_kind(is_input=False)
        return _Bound(context, {buffer.name: tuple(context.get_tensor_shape(buffer.name)) for buffer in outputs})

    def _enqueue(self, bound: _Bound) -> None:
        if bound.graph is None and bound.has_run and self._use_graphs:
            self._record_graph(bound)
        if bound.graph is not None:
            self._plan.cuda.launch_graph(bound.graph, self._lane.stream)
            return
        self._execute(bound.context)
        bound.has_run = True

    def _record_graph(self, bound: _Bound) -> None:
        """Record the second run; the first one has allocated and loaded what may not happen during a recording."""
        cuda, stream = self._plan.cuda, self._lane.stream
        if not self._plan.memory.can_record(bound.context, stream):
            return
        try:
            cuda.begin_capture(stream)
            self._execute(bound.context)
            bound.graph = cuda.end_capture(stream)
        except CudaError as error:
            cuda.abort_capture(stream)
            _LOG.warning("this plan runs without CUDA graphs: %s", error)
            self._use_graphs = False

    def _execute(self, context: IExecutionContext) -> None:
        self._plan.library.forget_errors()
        if not context.execute_async_v3(self._lane.stream):
            raise CudaError(f"TensorRT cannot run the plan: {self._plan.library.last_error()}")


def _lane_of(plan: Plan, beside: Engine | None) -> Lane:
    return beside._lane if isinstance(beside, TensorRtEngine) else Lane(plan.cuda)


def _allocate(plan: Plan, resources: ExitStack) -> list[_Buffer]:
    """Allocate every input and output for its largest shape; `resources` frees them, also after an error."""
    buffers = []
    for name, shape in largest_shapes(plan).items():
        dtype = dtype_of(plan.engine, name)
        n_bytes = int(np.prod(shape)) * dtype.itemsize
        device = plan.cuda.allocate(n_bytes)
        resources.callback(plan.cuda.free, device)
        buffers.append(_Buffer(name, is_input(plan.engine, name), dtype, n_bytes, device))
    return buffers


def _free_pinned(cuda: Cuda, buffers: list[_Buffer]) -> None:
    for buffer in buffers:
        if buffer.pinned is not None:
            cuda.free_pinned(buffer.pinned.ctypes.data)
            buffer.pinned = None


def _check_feeds(inputs: list[_Buffer], feeds: Mapping[str, Tensor]) -> None:
    expected = {buffer.name: buffer.dtype for buffer in inputs}
    if set(feeds) != set(expected):
        raise InputError(f"the plan was given {', '.join(feeds)}, expected the inputs {', '.join(expected)}")
    for name, array in feeds.items():
        if array.dtype != expected[name]:
            raise InputError(f"input {name} has dtype {array.dtype}, expected {expected[name]}")


def _drop(cuda: Cuda, bound: _Bound) -> None:
    if bound.graph is not None:
        cuda.destroy_graph(bound.graph)


def _drop_all(cuda: Cuda, bounds: dict[tuple[tuple[Shape, int], ...], _Bound]) -> None:
    while bounds:
        _drop(cuda, bounds.popitem()[1])
