"""OpenVINO on a CPU: the embedded default. An `.xml` (with its `.bin`) or `.onnx` file goes in."""

from __future__ import annotations

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


class OpenVinoEngine:
    """One compiled model and one infer request of it."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._request = compiled.create_infer_request()
        self._outputs = {port.get_any_name(): index for index, port in enumerate(compiled.outputs)}
        self._times_ms: dict[str, float] = {}

    @classmethod
    def open(cls, path: Path, precision: Precision, n_threads: int | None) -> OpenVinoEngine:
        """Compile `path` for the CPU in the given arithmetic.

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
            return cls(core.compile_model(str(path), "CPU", config))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise BundleError(f"OpenVINO cannot load {path} ({reason}); build the bundle again") from error

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `compute`."""
        return self._times_ms

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs are read in place, outputs are views that the next call overwrites."""
        start = time.perf_counter()
        self._request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        self._times_ms = {"compute": (time.perf_counter() - start) * 1e3}
        return {name: np.asarray(self._request.get_output_tensor(i).data) for name, i in self._outputs.items()}

    def clone(self) -> OpenVinoEngine:
        """Return a second infer request of the same compiled model."""
        return OpenVinoEngine(self._compiled)

    def close(self) -> None:
        """Drop request and model."""
        del self._request, self._compiled


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(
            f"OpenVINO cannot be imported ({error}); install it with: pip install openvino"
        ) from error
    return openvino.Core()
