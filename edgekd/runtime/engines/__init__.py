"""One network behind one small interface, whatever runs it; one file a backend.

A stage of a bundle goes in, an `Engine` comes out. The backend's library is imported here and nowhere else, when the
first bundle that needs it is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgekd.bundle import BackendName, EngineStage

Array = NDArray[np.generic]


class Engine(Protocol):
    """A loaded network. One engine serves one thread at a time; `clone` gives another thread its own."""

    @property
    def times_ms(self) -> Mapping[str, float]:
        """Milliseconds of the last `infer`: `h2d`, `gpu_compute`, `d2h` on a GPU, `compute` on a CPU."""

    def infer(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run once: C-contiguous arrays by input name in, arrays by output name out.

        The outputs belong to the engine and are overwritten by the next call.
        """

    def clone(self) -> Engine:
        """Return an engine that shares the weights and may be used by another thread."""

    def close(self) -> None:
        """Give memory back; the engine must not be used afterwards."""


def open_engine(backend: BackendName, stage: EngineStage, folder: Path, n_threads: int | None = None) -> Engine:
    """Open one stage of a bundle.

    Args:
        backend: the bundle's backend.
        stage: the manifest's entry; its first file is opened.
        folder: the bundle.
        n_threads: CPU threads, None for the backend's own choice; ignored on a GPU.

    Raises:
        BackendUnavailable: the backend's library or device is not on this machine.
        BundleError: the library refuses the file.
    """
    path = folder / stage.files[0].name
    if backend == "openvino":
        from edgekd.runtime.engines.openvino import OpenVinoEngine

        return OpenVinoEngine.open(path, stage.precision, n_threads)
    if backend == "onnxruntime":
        from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine.open(path, n_threads)
    from edgekd.runtime.engines.tensorrt import TensorRtEngine

    return TensorRtEngine.open(path, rtx=backend == "tensorrt-rtx")
