"""The engine of ONNX Runtime is the graph itself: an ONNX file in, the same file in the bundle out."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgekd.backends import BackendName
from edgekd.deploy.build_options import EngineJob


def build(job: EngineJob) -> list[Path]:
    """Copy the graph; returns the files written."""
    return [Path(shutil.copyfile(job.graph, job.target.with_suffix(".onnx")))]


def version(backend: BackendName) -> str:
    """Return the version of ONNX Runtime."""
    import onnxruntime

    return str(onnxruntime.__version__)
