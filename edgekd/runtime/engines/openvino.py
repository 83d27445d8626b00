"""OpenVINO on a CPU: the embedded default. An `.xml` (with its `.bin`) or `.onnx` file goes in."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.bundle import Precision
from edgekd.errors import BackendUnavailable, BundleError
from edgekd.runtime.engines import Array

# INT8 graphs carry their own Q/DQ; what stays float in them runs in fp32 so that a gate measures quantization alone.
_PRECISION_HINT = {"fp32": "f32", "int8": "f32", "bf16": "bf16", "fp16": "f16"}


Sizes = tuple[tuple[int, ...], ...]


class _Network:
    """A model as read, and what was compiled of it: one compiled model for each size that came, shared by clones.

    Axis 0 of an input counts pictures or boxes and may stay open; a network with other open axes is compiled for the
    sizes of its first input, and again when an input of other sizes comes.
    """

    def __init__(self, core: Any, model: Any, config: Mapping[str, Any]) -> None:
        self._core, self._model, self._config = core, model, config
        self._lock = threading.Lock()
        self._compiled: dict[Sizes, Any] = {}
        self.names = tuple(port.get_any_name() for port in model.inputs)
        self.has_open_sizes = any(axis.is_dynamic for port in model.inputs for axis in list(port.partial_shape)[1:])

    def compiled(self, sizes: Sizes) -> Any:
        """Compile for inputs whose shapes behind axis 0 are `sizes`, in the order of `names`; () for fixed sizes."""
        with self._lock:
            if sizes not in self._compiled:
                if sizes:
                    counts = [port.partial_shape[0] for port in self._model.inputs]
                    shapes = zip(self.names, counts, sizes, strict=True)
                    self._model.reshape({name: [count, *size] for name, count, size in shapes})
                self._compiled[sizes] = self._compile()
            return self._compiled[sizes]

    def _compile(self) -> Any:
        try:
            return self._core.compile_model(self._model, "CPU", dict(self._config))
        except RuntimeError as error:
            raise BundleError(
                f"OpenVINO cannot compile a network ({last_line(error)}); build the bundle again"
            ) from error


def last_line(error: RuntimeError) -> str:
    """OpenVINO's reason is the last line of its message."""
    return str(error).strip().splitlines()[-1]


class OpenVinoEngine:
    """One network, and an infer request for each of the sizes it was compiled for."""

    def __init__(self, network: _Network) -> None:
        self._network = network
        self._requests: dict[Sizes, Any] = {}
        self._times_ms: dict[str, float] = {}
        if not network.has_open_sizes:
            self._request(())

    @classmethod
    def open(cls, path: Path, precision: Precision, n_threads: int | None) -> OpenVinoEngine:
        """Read `path` for the CPU in the given arithmetic; a graph of fixed sizes is compiled at once.

        Raises:
            BackendUnavailable: OpenVINO is not installed, or this CPU has no arithmetic of that precision.
            BundleError: OpenVINO cannot read the file.
        """
        core = _core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision in ("bf16", "fp16") and precision.upper() not in capabilities:
            raise BackendUnavailable(
                f"{path.name} wants {precision} and this CPU offers {', '.join(sorted(capabilities))}; "
                "rebuild the bundle with: edgekd build-engine --precision fp32"
            )
        config: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": _PRECISION_HINT[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        if n_threads is not None:
            config["INFERENCE_NUM_THREADS"] = n_threads
        try:
            return cls(_Network(core, core.read_model(str(path)), config))
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load {path} ({last_line(error)}); build the bundle again") from error

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `compute`."""
        return self._times_ms

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs are read in place, outputs are views that the next call overwrites.

        The first input of another size takes as long as a compilation.
        """
        open_sizes = self._network.has_open_sizes
        request = self._request(tuple(feeds[name].shape[1:] for name in self._network.names) if open_sizes else ())
        start = time.perf_counter()
        request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        self._times_ms = {"compute": (time.perf_counter() - start) * 1e3}
        return {port.get_any_name(): np.asarray(request.get_tensor(port).data) for port in request.model_outputs}

    def clone(self) -> OpenVinoEngine:
        """Return an engine with its own requests of the same compiled models."""
        return OpenVinoEngine(self._network)

    def close(self) -> None:
        """Drop requests and models."""
        self._requests.clear()
        del self._network

    def _request(self, sizes: Sizes) -> Any:
        if sizes not in self._requests:
            self._requests[sizes] = self._network.compiled(sizes).create_infer_request()
        return self._requests[sizes]


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            f"OpenVINO cannot be imported ({error}); install it with: pip install openvino"
        ) from error
    return openvino.Core()
