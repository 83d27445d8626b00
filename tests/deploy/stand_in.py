"""Bundles of TensorRT as its stand-in builds them, and `run_stand_in.py` on them: through Python and through C.

What computes is ONNX Runtime, and the GPU is host_cudart.c; no TensorRT ran any of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fake_builder
import fake_library
import host_cuda
import numpy as np
import pytest
import tiny_kinds
from tensorrt_wheels import LIBRARIES, unpacked

from edgekd.backends import BACKENDS
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.runtime import cuda
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.tensorrt_library import tensorrt_library
from edgekd.types import ChainResult

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CONFIDENCE, MAX_BOXES = 0.3, (7, 3, 1, 7)
BINDINGS = {"8.6.1": "8.6.1", "10.3.0": "10.3.0", "11.0": "11.0.0.114"}
"""Version of the headers -> release of the bindings."""


def built(models: Path, folder: Path, headers: str, **options: Any) -> Path:
    """Build a bundle with the stand-in for the builder, as that version's branch does."""
    version = "11.0.0" if headers.startswith("11") else headers
    with pytest.MonkeyPatch.context() as monkeypatch:
        scratch = options.pop("scratch", None)
        fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch), version, scratch)
        build_bundle(models, folder, BuildOptions(backend="tensorrt", precision="fp32", **options))
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()
    return folder


def answers_of_onnx_runtime(
    models: Path, folder: Path, pictures: np.ndarray, confidence: float, max_boxes: Sequence[int], **options: Any
) -> list[ChainResult]:
    """What the reference says of pictures, with the sizes that a TensorRT bundle has."""
    build_bundle(models, folder, BuildOptions(backend="onnxruntime", precision="fp32", square=True, **options))
    with Chain.open(folder, n_threads=1) as chain:
        choices = [ChainOptions(DetectOptions(confidence, max_boxes=n)) for n in max_boxes]
        return [chain(picture, choice) for picture, choice in zip(pictures, choices, strict=True)]


def bytes_per_call(n_boxes: int) -> list[int]:
    """What a call on the tiny sam bundle copies to the device and to the host: embeddings are not a part of it."""
    anchors, low = 8 * 8 + 4 * 4 + 2 * 2, 16 * 16
    bucket = next(size for size in BACKENDS["tensorrt"].box_buckets if size >= n_boxes)
    picture = 3 * 64 * 64
    return [4 * (2 * picture + 4 * bucket), 4 * (anchors * (64 + tiny_kinds.N_CLASSES) + bucket * (low + 1))]


def python_job(headers: str, stubs: Path, room: Path) -> dict[str, Any]:
    """What runs through the real Python bindings of a version."""
    fake, major = fake_library.compiled_fake(headers), headers.split(".")[0]
    others = [str(stubs / f"lib{name}") for name in LIBRARIES[major] if not name.startswith("nvinfer.so")]
    site = unpacked(BINDINGS[headers], room / "site")
    return {"language": "python", "site": str(site), "libraries": [str(fake), *others]}


def c_job(headers: str, library: Path) -> dict[str, Any]:
    """What runs through a built libedgekd with the TensorRT module of a version."""
    modules = fake_library.compiled_module(headers).parent
    return {"language": "c", "library": str(library), "modules": str(modules)}


def run(
    job: Mapping[str, Any], bundles: Mapping[str, Path], pictures: np.ndarray, room: Path, **settings: Any
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Run a job on bundles by kind; returns what was counted by kind, and the answers by "kind picture what".

    `settings` are n_calls (for each bundle), n_clones, confidence, and max_boxes for each picture.
    """
    np.save(room / "pictures.npy", pictures)
    whole = {"n_calls": 0, "n_clones": 4, "confidence": 0.05, "max_boxes": [7] * len(pictures), **settings, **job}
    whole |= {"bundles": {kind: str(folder) for kind, folder in bundles.items()}, "result": str(room / "result.npz")}
    (room / "job.json").write_text(json.dumps(whole | {"pictures": str(room / "pictures.npy")}))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE, HERE.parent / "runtime"))),
        "EDGEKD_CUDART": host_cuda.compiled(), "EDGEKD_FAKE_ORT": fake_library.onnxruntime_library(),
        "EDGEKD_PICTURES": "host",
    }  # fmt: skip
    command = [sys.executable, str(HERE / "run_stand_in.py"), str(room / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = dict(np.load(room / "result.npz"))
    return json.loads(str(found.pop("counted"))), found
