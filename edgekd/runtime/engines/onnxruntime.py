"""ONNX Runtime on a CPU: the reference for parity. An `.onnx` file goes in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekd.errors import BackendUnavailable, BundleError
from edgekd.runtime.engines import Array, Engine, Tensor


class OnnxRuntimeEngine:
    """One inference session; `Run` is thread-safe, so clones share it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._output_names = [output.name for output in session.get_outputs()]
        self._times_ms: dict[str, float] = {}

    @classmethod
    def open(cls, path: Path, n_threads: int | None) -> OnnxRuntimeEngine:
        """Create a session on the CPU provider.

        Raises:
            BackendUnavailable: ONNX Runtime is not installed.
            BundleError: ONNX Runtime cannot read the file.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailable(
                f"ONNX Runtime cannot be imported ({error}); install it with: pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if n_threads is not None:
            options.intra_op_num_threads = n_threads
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except (onnxruntime.capi.onnxruntime_pybind11_state.Fail, RuntimeError, ValueError) as error:
            raise BundleError(f"ONNX Runtime cannot load {path} ({error}); build the bundle again") from error
        return cls(session)

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `compute`."""
        return self._times_ms

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
        """Run once; the outputs are fresh arrays."""
        start = time.perf_counter()
        outputs = self._session.run(self._output_names, dict(feeds))
        self._times_ms = {"compute": (time.perf_counter() - start) * 1e3}
        return dict(zip(self._output_names, outputs, strict=True))

    def infer_one(self, feeds: Mapping[str, Tensor], output: str) -> Tensor:
        """Run once and return one output."""
        return self.infer(feeds)[output]

    def clone(self, beside: Engine | None = None) -> OnnxRuntimeEngine:
        """Return an engine on the same session."""
        return OnnxRuntimeEngine(self._session)

    def close(self) -> None:
        """Drop the session."""
        del self._session
