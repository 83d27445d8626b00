"""edgekd carries a detector and a promptable segmenter from training to a small device.

    import edgekd

    chain = edgekd.load("bundle/")
    result = chain(edgekd.read_picture("harbour.jpg"))
    print(result.detections.xyxy, result.masks.full(0))

`import edgekd` loads no heavy library; the names below are loaded when they are first used. Libraries that would report
their use to their makers are told not to, before they are imported: OpenVINO and NNCF report every import and call to
Google Analytics and keep an identifier in `~/intel`; ONNX Runtime (from 1.29 on) reports to its makers and keeps one in
the folder for temporary files. Who wants to send sets ORT_DISABLE_TELEMETRY to 0, or imports `openvino` before edgekd.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from edgekd.bundle import Manifest, read_manifest
    from edgekd.data.labels import LabelledSet
    from edgekd.data.read import read_labels
    from edgekd.deploy.build import build_bundle
    from edgekd.deploy.build_options import BuildOptions
    from edgekd.deploy.calibrate import CalibrateOptions, calibrate
    from edgekd.deploy.export_models import ModelChoice, export_models
    from edgekd.errors import (
        BackendUnavailable,
        BuildError,
        BundleError,
        BundleMismatch,
        DataError,
        EdgekdError,
        GateFailed,
        InputError,
        Interrupted,
        ModelError,
        TrainingError,
    )
    from edgekd.measure.accuracy import AccuracyReport, EvaluateOptions, evaluate
    from edgekd.measure.latency import BenchOptions, LatencyReport, measure_latency
    from edgekd.model_set import ModelSet
    from edgekd.runtime.chain import Chain, ChainOptions
    from edgekd.runtime.detect import DetectOptions
    from edgekd.runtime.results.draw import overlay
    from edgekd.runtime.results.writer import ResultOptions, ResultWriter
    from edgekd.runtime.run import PictureReport, RunOptions, run_pictures
    from edgekd.runtime.segment import MaskOptions
    from edgekd.runtime.sources import read_picture
    from edgekd.types import ChainResult, Detections, Masks

__version__ = "0.1.0"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# On 64-bit Arm, oneDNN below OpenVINO would leave the file /tmp/perf-PID.map of every process, for the profiler perf.
os.environ.setdefault("ONEDNN_JIT_PROFILE", "0")
# OpenVINO and NNCF take stand-ins of their own when this module cannot be imported, which is what None says.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_HOME = {
    "AccuracyReport": "edgekd.measure.accuracy",
    "BackendUnavailable": "edgekd.errors",
    "BenchOptions": "edgekd.measure.latency",
    "BuildError": "edgekd.errors",
    "BuildOptions": "edgekd.deploy.build_options",
    "BundleError": "edgekd.errors",
    "BundleMismatch": "edgekd.errors",
    "CalibrateOptions": "edgekd.deploy.calibrate",
    "Chain": "edgekd.runtime.chain",
    "ChainOptions": "edgekd.runtime.chain",
    "ChainResult": "edgekd.types",
    "DataError": "edgekd.errors",
    "DetectOptions": "edgekd.runtime.detect",
    "Detections": "edgekd.types",
    "EdgekdError": "edgekd.errors",
    "EvaluateOptions": "edgekd.measure.accuracy",
    "GateFailed": "edgekd.errors",
    "InputError": "edgekd.errors",
    "Interrupted": "edgekd.errors",
    "LabelledSet": "edgekd.data.labels",
    "LatencyReport": "edgekd.measure.latency",
    "Manifest": "edgekd.bundle",
    "MaskOptions": "edgekd.runtime.segment",
    "Masks": "edgekd.types",
    "ModelChoice": "edgekd.deploy.export_models",
    "ModelError": "edgekd.errors",
    "ModelSet": "edgekd.model_set",
    "PictureReport": "edgekd.runtime.run",
    "ResultOptions": "edgekd.runtime.results.writer",
    "ResultWriter": "edgekd.runtime.results.writer",
    "RunOptions": "edgekd.runtime.run",
    "TrainingError": "edgekd.errors",
    "build_bundle": "edgekd.deploy.build",
    "calibrate": "edgekd.deploy.calibrate",
    "evaluate": "edgekd.measure.accuracy",
    "export_models": "edgekd.deploy.export_models",
    "measure_latency": "edgekd.measure.latency",
    "overlay": "edgekd.runtime.results.draw",
    "read_labels": "edgekd.data.read",
    "read_manifest": "edgekd.bundle",
    "read_picture": "edgekd.runtime.sources",
    "run_pictures": "edgekd.runtime.run",
}

__all__ = [
    "AccuracyReport",
    "BackendUnavailable",
    "BenchOptions",
    "BuildError",
    "BuildOptions",
    "BundleError",
    "BundleMismatch",
    "CalibrateOptions",
    "Chain",
    "ChainOptions",
    "ChainResult",
    "DataError",
    "DetectOptions",
    "Detections",
    "EdgekdError",
    "EvaluateOptions",
    "GateFailed",
    "InputError",
    "Interrupted",
    "LabelledSet",
    "LatencyReport",
    "Manifest",
    "MaskOptions",
    "Masks",
    "ModelChoice",
    "ModelError",
    "ModelSet",
    "PictureReport",
    "ResultOptions",
    "ResultWriter",
    "RunOptions",
    "TrainingError",
    "build_bundle",
    "calibrate",
    "evaluate",
    "export_models",
    "load",
    "measure_latency",
    "overlay",
    "read_labels",
    "read_manifest",
    "read_picture",
    "run_pictures",
]


def load(
    folder: str | Path, n_threads: int | None = None, verify: bool = False, public_key: str | Path | None = None
) -> Chain:
    """Open a bundle; see `edgekd.Chain.open` for arguments and errors.

    With `verify` its engines are asked the question whose answer is in the bundle: a `BundleError` says that they
    answer otherwise than when they were built, or that the bundle has no known answer. With `public_key` the bundle
    must carry a signature of that key, which covers every byte that is read of it.
    """
    from pathlib import Path

    from edgekd.bundle import settled
    from edgekd.runtime.chain import Chain

    folder = settled(Path(folder))
    chain = Chain.open(folder, n_threads, public_key)
    if verify:
        from edgekd.runtime.known_answer import verify_chain

        verify_chain(folder, chain)
    return chain


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekd' has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from edgekd.environment import missing_module

        raise missing_module(error, f"edgekd.{name}") from error


def __dir__() -> list[str]:
    return sorted(__all__)
