"""ONNX Runtime on a CPU: the reference for parity. An `.onnx` file goes in."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekd.errors import BackendUnavailable, BundleError
from edgekd.runtime.engines import Array, Engine, Ports, Tensor
from edgekd.runtime.engines.onnx_operators import operators_of
from edgekd.text import shown


class OnnxRuntimeEngine:
    """One inference session; `Run` is thread-safe, so clones share it."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._output_names = [output.name for output in session.get_outputs()]
        self._times_ms: dict[str, float] = {}

    @classmethod
    def open(cls, path: Path, n_threads: int | None, contents: Sequence[bytes] = ()) -> OnnxRuntimeEngine:
        """Create a session on the CPU provider.

        `contents` is what the file holds, where it was read and checked before; a session is made from memory, so
        that weights in other files are never opened.

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
            content = contents[0] if contents else path.read_bytes()
            _check_operators(content, path)
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except _exceptions() as error:
            raise BundleError(f"ONNX Runtime cannot load {path} ({one_line(error)}); build the bundle again") from error
        return cls(session)

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `compute`."""
        return self._times_ms

    @property
    def ports(self) -> Ports:
        """Names of the inputs and outputs."""
        return Ports(frozenset(port.name for port in self._session.get_inputs()), frozenset(self._output_names))

    def infer(self, feeds: Mapping[str, Tensor]) -> dict[str, Array]:
        """Run once; the outputs are fresh arrays."""
        start = time.perf_counter()
        try:
            outputs = self._session.run(self._output_names, dict(feeds))
        except _exceptions() as error:
            raise BundleError(f"ONNX Runtime cannot run a network ({one_line(error)}); build it again") from error
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


def _exceptions() -> tuple[type[Exception], ...]:
    """What it raises: its own exceptions have no base class in common."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (*own, OSError, RuntimeError, ValueError)


def _check_operators(content: bytes, path: Path) -> None:
    """Refuse a graph that could run for ever, reads other files or has NaN weights: none that edgekd exports does."""
    refused = operators_of(content) & {"Loop", "If", "Scan", "external data", "NaN"}
    if refused:
        raise BundleError(f"{path} holds {min(refused)}, which no bundle needs; build the bundle again")


def one_line(error: Exception) -> str:
    """Return the reason without line breaks, and without what a name in the graph could do to a terminal."""
    return shown(" ".join(str(error).split()))
