"""One network behind one small interface, whatever runs it; one file per backend.

A stage of a bundle goes in, an `Engine` comes out. The backend's library is imported here and nowhere else, when the
first bundle that needs it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgekd.backends import BACKENDS, BackendName
from edgekd.bundle import EngineStage, read_files
from edgekd.errors import BundleError
from edgekd.graphs import StageName, tensor_of
from edgekd.types import Float32Array

if TYPE_CHECKING:
    from edgekd.runtime.engines.lane import Lane

Array = NDArray[np.generic]


@dataclass(frozen=True)
class DeviceArray:
    """An output that stays on the GPU, until the next run of its engine; `numpy.asarray` copies it to the host.

    Attributes:
        address: of the device memory.
        shape, dtype: as of an array.
        lane: whose stream computes it.
        read: waits and returns a copy on the host.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    lane: Lane
    read: Callable[[], Array]

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> Array:
        array = self.read()
        return array if dtype is None else array.astype(dtype)


Tensor = Array | DeviceArray


@dataclass(frozen=True)
class Ports:
    """Names of a network's inputs and outputs."""

    inputs: frozenset[str]
    outputs: frozenset[str]


class Engine(Protocol):
    """A loaded network. One engine serves one thread at a time; `clone` gives another thread its own."""

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `h2d`, `gpu_compute`, `d2h` on a GPU, `compute` on a CPU."""

    @property
    def ports(self) -> Ports:
        """Names of the inputs and outputs, as the network has them."""

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
        """Run once: C-contiguous arrays by input name in, arrays by output name out.

        The outputs belong to the engine and are overwritten by the next call.
        """

    def infer_one(self, feeds: Mapping[str, Tensor], output: str) -> Tensor:
        """Run once and return one output where it is: on the GPU, without a wait and a copy, or as an array on a CPU.

        It goes into another engine opened `beside` this one, and is overwritten by the next call.
        """

    def clone(self, beside: Engine | None = None) -> Engine:
        """Return an engine that shares the weights and may be used by another thread.

        With `beside`, an engine of that thread, the two share a stream and scratch memory where they are on a GPU.
        """

    def close(self) -> None:
        """Give memory back; the engine must not be used afterwards."""


@runtime_checkable
class QueuingEngine(Protocol):
    """What an engine on a GPU can do besides: its runs are queued, and others may write its inputs on the GPU."""

    def start(self, feeds: Mapping[str, Tensor]) -> Callable[[], dict[str, Array]]:
        """Queue a run with all copies; what is returned waits for it and gives the outputs, as `infer` does."""

    def device_input(self, name: str, shape: tuple[int, ...]) -> DeviceArray:
        """Return the engine's own memory for an input of this shape, to be written on the stream of its lane.

        Raises:
            InputError: the plan takes no input of this name and size.
        """


def start(engine: Engine, feeds: Mapping[str, Tensor]) -> Callable[[], dict[str, Array]]:
    """Begin a run and return what waits for its outputs; on a CPU it is done when this returns."""
    if isinstance(engine, QueuingEngine):
        return engine.start(feeds)
    outputs = engine.infer(feeds)
    return lambda: outputs


def floats(outputs: Mapping[str, Array], name: str) -> Float32Array:
    """Return an output as float32, by its present or former name.

    Raises:
        BundleError: it holds NaN or infinity, which would pass for a picture without objects.
    """
    values = np.asarray(tensor_of(outputs, name)).astype(np.float32, copy=False)
    if not np.isfinite(values.sum(dtype=np.float64)):
        raise BundleError(
            f"the output {name} is not finite: the weights are damaged, or overflow in this precision; "
            "build the bundle again with: edgekd build-engine MODELS --precision fp32"
        )
    return values


def open_engine(
    backend: BackendName,
    stage: EngineStage,
    folder: Path,
    n_threads: int | None = None,
    beside: Engine | None = None,
) -> Engine:
    """Open one stage of a bundle.

    Args:
        backend: the bundle's backend.
        stage: the manifest's entry; its first file is opened.
        folder: the bundle.
        n_threads: CPU threads, None for the backend's own choice; ignored on a GPU.
        beside: an engine of the same thread, with which this one shares a stream and scratch memory on a GPU.

    Raises:
        BackendUnavailable: the backend's library or device is not on this machine.
        BundleError: a file was changed after the build, or the library refuses it.
    """
    path, contents = folder / stage.files[0].name, read_files(folder, stage)
    engine = _opened(backend, stage, path, contents, n_threads, beside)
    try:
        check_ports(path, stage, engine.ports)
    except BundleError:
        engine.close()
        raise
    return engine


def check_ports(path: Path, stage: EngineStage, found: Ports) -> None:
    """Compare the inputs and outputs of an engine with the manifest's.

    Raises:
        BundleError: it has other inputs, or lacks an output.
    """
    wanted = Ports(frozenset(spec.name for spec in stage.inputs), frozenset(spec.name for spec in stage.outputs))
    for words, names in (
        ("lacks the input", wanted.inputs - found.inputs),
        ("has the input", found.inputs - wanted.inputs),
        ("lacks the output", wanted.outputs - found.outputs),
    ):
        if names:
            raise BundleError(f"{path} {words} {min(names)}, unlike its manifest; build the bundle again")


def _opened(
    backend: BackendName,
    stage: EngineStage,
    path: Path,
    contents: tuple[bytes, ...],
    n_threads: int | None,
    beside: Engine | None,
) -> Engine:
    module = BACKENDS[backend].module
    if module == "openvino":
        from edgekd.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine.open(path, stage.arithmetic, n_threads, contents)
    if module == "onnxruntime":
        from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine.open(path, n_threads, contents)
    from edgekd.runtime.engines.tensorrt import TensorRtEngine

    return TensorRtEngine.open(path, BACKENDS[backend].rtx, beside=beside, contents=contents)


def open_engines(
    backend: BackendName, stages: Mapping[StageName, EngineStage], folder: Path, n_threads: int | None = None
) -> dict[StageName, Engine]:
    """Open all stages of a bundle for one thread; arguments and errors as for `open_engine`."""
    engines: dict[StageName, Engine] = {}
    try:
        for name, stage in stages.items():
            engines[name] = open_engine(backend, stage, folder, n_threads, _neighbour(engines, name))
    except BaseException:
        close_engines(engines)
        raise
    return engines


def clone_engines(engines: Mapping[StageName, Engine]) -> dict[StageName, Engine]:
    """Return clones of the engines of one thread for another one; nothing stays open after an error."""
    copies: dict[StageName, Engine] = {}
    try:
        for name, engine in engines.items():
            copies[name] = engine.clone(beside=_neighbour(copies, name))
    except BaseException:
        close_engines(copies)
        raise
    return copies


def close_engines(engines: Mapping[StageName, Engine]) -> None:
    """Close all."""
    for engine in engines.values():
        engine.close()


def _neighbour(engines: Mapping[StageName, Engine], name: StageName) -> Engine | None:
    """The engine whose lane a stage shares: the detector has its own, so that an encoder runs beside it."""
    if name == "detector":
        return None
    return next((engine for other, engine in engines.items() if other != "detector"), None)
