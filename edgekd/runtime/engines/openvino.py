"""OpenVINO on a CPU: the embedded default. An `.xml` (with its `.bin`) or `.onnx` file goes in."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from edgekd.backends import Precision
from edgekd.errors import BackendUnavailable, BundleError
from edgekd.runtime.engines import Array, Engine, Ports, Tensor
from edgekd.runtime.engines.openvino_cache import compile_kept, digest_of

# Of the float layers: INT8 graphs carry their own Q/DQ.
_PRECISION_HINT = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}

KEPT_SIZES = 6
"""Input sizes that an engine keeps compiled, the last used: enough for the common shapes of a mixed folder, and a bound
on memory."""

Sizes = tuple[tuple[int, ...], ...]


class _Network:
    """A model as read, and what engines hold compiled of it: one compiled model for each size, shared by clones.

    Axis 0 of an input counts pictures or boxes and may stay open; a network with other open axes is compiled for the
    sizes of its first input, and again when an input of other sizes comes.
    """

    def __init__(self, core: Any, model: Any, config: Mapping[str, Any], contents: Sequence[bytes]) -> None:
        self._core, self._model, self._config = core, model, config
        self._source = digest_of(contents) if contents else None  # None: read from a file, whose bytes nobody checked
        self._lock = threading.Lock()
        self._compiled: WeakValueDictionary[Sizes, Any] = WeakValueDictionary()
        self.names = tuple(port.get_any_name() for port in model.inputs)
        self.outputs = frozenset(name for port in model.outputs for name in port.get_names())
        self.has_open_sizes = any(axis.is_dynamic for port in model.inputs for axis in list(port.partial_shape)[1:])

    def compiled(self, sizes: Sizes) -> Any:
        """Compile for inputs whose shapes behind axis 0 are `sizes`, in the order of `names`; () for fixed sizes."""
        with self._lock:
            compiled = self._compiled.get(sizes)
            if compiled is None:
                if sizes:
                    counts = [port.partial_shape[0] for port in self._model.inputs]
                    shapes = zip(self.names, counts, sizes, strict=True)
                    self._model.reshape({name: [count, *size] for name, count, size in shapes})
                compiled = self._compiled[sizes] = self._compile()
            return compiled

    def _compile(self) -> Any:
        try:
            if self._source is None:
                return self._core.compile_model(self._model, "CPU", dict(self._config))
            return compile_kept(self._core, self._model, self._config, self._source)
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO cannot compile a network ({last_line(error)}); build the bundle again"
            ) from error


def last_line(error: RuntimeError) -> str:
    """OpenVINO's reason is the last line of its message."""
    return str(error).strip().splitlines()[-1]


class OpenVinoEngine:
    """One network, compiled and with an infer request for each of the last `KEPT_SIZES` sizes that came."""

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._kept: dict[Sizes, tuple[Any, Any]] = {}  # compiled model and request, the last used at the end
        self._times_ms: dict[str, float] = {}
        if not network.has_open_sizes:
            self._request(())

    @classmethod
    def open(
        cls, path: Path, precision: Precision, n_threads: int | None, contents: Sequence[bytes] = ()
    ) -> OpenVinoEngine:
        """Read `path` for the CPU in the given arithmetic; a graph of fixed sizes is compiled at once.

        `contents` are the bytes of the `.xml` and its `.bin`, where they were read and checked before: then no file is
        opened here.

        Raises:
            BackendUnavailable: OpenVINO is not installed, or this CPU has no arithmetic of that precision.
            BundleError: OpenVINO cannot read the file.
        """
        core = _core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision in ("bf16", "fp16") and precision.upper() not in capabilities:
            raise BackendUnavailable(
                f"{path.name} wants {precision} and this CPU offers {', '.join(sorted(capabilities))}; "
                "rebuild the bundle with: edgekd build-engine MODELS --precision fp32"
            )
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISION_HINT[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if n_threads is not None:
            config["INFERENCE_NUM_THREADS"] = n_threads
        try:
            model = core.read_model(*contents) if contents else core.read_model(str(path))
            return cls(_Network(core, _checked(model, path), config, contents))
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load {path} ({last_line(error)}); build the bundle again") from error

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `compute`."""
        return self._times_ms

    @property
    def ports(self) -> Ports:
        """Names of the inputs and outputs."""
        return Ports(frozenset(self._network.names), self._network.outputs)

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
        """Run once; inputs are read in place, outputs are views that the next call overwrites.

        An input of a size that is not kept takes as long as a compilation.
        """
        open_sizes = self._network.has_open_sizes
        request = self._request(tuple(feeds[name].shape[1:] for name in self._network.names) if open_sizes else ())
        start = time.perf_counter()
        request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        self._times_ms = {"compute": (time.perf_counter() - start) * 1e3}
        return {port.get_any_name(): np.asarray(request.get_tensor(port).data) for port in request.model_outputs}

    def infer_one(self, feeds: Mapping[str, Tensor], output: str) -> Tensor:
        """Run once and return one output."""
        return self.infer(feeds)[output]

    def clone(self, beside: Engine | None = None) -> OpenVinoEngine:
        """Return an engine with its own requests of the same compiled models."""
        return OpenVinoEngine(self._network)

    def close(self) -> None:
        """Drop requests and models."""
        self._kept.clear()
        del self._network

    def _request(self, sizes: Sizes) -> Any:
        kept = self._kept.pop(sizes, None)
        if kept is None:
            if len(self._kept) == KEPT_SIZES:  # before the next is compiled, so that memory stays bounded
                del self._kept[next(iter(self._kept))]
            compiled = self._network.compiled(sizes)
            kept = compiled, compiled.create_infer_request()
        self._kept[sizes] = kept
        return kept[1]


def _checked(model: Any, path: Path) -> Any:
    """Refuse a network that could run for ever, or has a NaN weight, which a ReLU behind it would hide."""
    layers = model.get_ops()
    loops = {layer.get_type_name() for layer in layers} & {"Loop", "TensorIterator", "If"}
    if loops:
        raise BundleError(f"{path} holds the operator {min(loops)}, which no bundle needs; build the bundle again")
    for layer in layers:
        if layer.get_type_name() == "Constant" and layer.get_element_type().is_real() and np.isnan(layer.data).any():
            raise BundleError(f"{path} holds a weight that is NaN, which no bundle needs; build the bundle again")
    return model


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            f"OpenVINO cannot be imported ({error}); install it with: pip install openvino"
        ) from error
    return openvino.Core()
