"""edgekd carries a detector and a promptable segmenter from training to a small device.

    import edgekd

    chain = edgekd.load("bundle/")
    result = chain(edgekd.read_picture("harbour.jpg"))
    print(result.detections.xyxy, result.masks.full(0))

`import edgekd` loads no heavy library; the names below are loaded when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekd.errors import (
        BackendUnavailable,
        BuildError,
        BundleError,
        BundleMismatch,
        DataError,
        EdgekdError,
        GateFailed,
        InputError,
        ModelError,
        TrainingError,
    )
    from edgekd.runtime.chain import Chain, ChainOptions
    from edgekd.runtime.detect import DetectOptions
    from edgekd.runtime.results.draw import overlay
    from edgekd.runtime.segment import MaskOptions
    from edgekd.runtime.sources import read_picture
    from edgekd.types import ChainResult, Detections, Masks

__version__ = "0.1.0"

_HOME = {
    "BackendUnavailable": "edgekd.errors",
    "BuildError": "edgekd.errors",
    "BundleError": "edgekd.errors",
    "BundleMismatch": "edgekd.errors",
    "Chain": "edgekd.runtime.chain",
    "ChainOptions": "edgekd.runtime.chain",
    "ChainResult": "edgekd.types",
    "DataError": "edgekd.errors",
    "DetectOptions": "edgekd.runtime.detect",
    "Detections": "edgekd.types",
    "EdgekdError": "edgekd.errors",
    "GateFailed": "edgekd.errors",
    "InputError": "edgekd.errors",
    "MaskOptions": "edgekd.runtime.segment",
    "Masks": "edgekd.types",
    "ModelError": "edgekd.errors",
    "TrainingError": "edgekd.errors",
    "overlay": "edgekd.runtime.results.draw",
    "read_picture": "edgekd.runtime.sources",
}

__all__ = [
    "BackendUnavailable",
    "BuildError",
    "BundleError",
    "BundleMismatch",
    "Chain",
    "ChainOptions",
    "ChainResult",
    "DataError",
    "DetectOptions",
    "Detections",
    "EdgekdError",
    "GateFailed",
    "InputError",
    "MaskOptions",
    "Masks",
    "ModelError",
    "TrainingError",
    "load",
    "overlay",
    "read_picture",
]


def load(folder: str, n_threads: int | None = None) -> Chain:
    """Open a bundle; see `edgekd.Chain.open` for arguments and errors."""
    from edgekd.runtime.chain import Chain

    return Chain.open(folder, n_threads)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
