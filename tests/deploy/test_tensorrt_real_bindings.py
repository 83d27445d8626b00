"""The real Python bindings of TensorRT, a libnvinfer compiled from the real headers, and a bundle: as on a device.

What computes is ONNX Runtime, and the GPU is host_cudart.c; no TensorRT ran any of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fake_builder
import fake_library
import host_cuda
import numpy as np
import pytest
from small_models import write_small_models
from tensorrt_wheels import LIBRARIES, unpacked

from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.runtime import cuda
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.tensorrt_library import tensorrt_library

HERE = Path(__file__).parent
BINDINGS = {"8.6.1": "8.6.1", "10.3.0": "10.3.0", "11.0": "11.0.0.114"}
"""Version of the headers -> release of the bindings."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_small_models(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory, scene):
    folder = tmp_path_factory.mktemp("reference") / "bundle"
    build_bundle(models, folder, BuildOptions(backend="onnxruntime", precision="fp32", square=True), lambda line: None)
    with Chain.open(folder, n_threads=1) as chain:
        return chain(scene, ChainOptions(DetectOptions(confidence=0.05, max_boxes=7)))


def built(models: Path, folder: Path, version: str) -> Path:
    """Build a bundle with the stand-in for the builder, as that version's branch does."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch), version)
        build_bundle(models, folder, BuildOptions(backend="tensorrt", precision="fp32"), lambda line: None)
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()
    return folder


@pytest.mark.tensorrt
@pytest.mark.parametrize("headers", BINDINGS)
def test_a_bundle_runs_through_the_real_bindings(headers, models, reference, scene, stub_folder, tmp_path):
    release, major = BINDINGS[headers], headers.split(".")[0]
    fake = fake_library.compiled_fake(headers)
    site = unpacked(release, tmp_path / "site")
    others = [str(stub_folder / f"lib{name}") for name in LIBRARIES[major] if not name.startswith("nvinfer.so")]
    bundle = built(models, tmp_path / "bundle", {"11": "11.0.0"}.get(major, headers))
    np.save(tmp_path / "picture.npy", scene)
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE), str(HERE.parent / "runtime")])
    environment = os.environ | {
        "PYTHONPATH": path, "EDGEKD_CUDART": host_cuda.compiled(), "EDGEKD_FAKE_ORT": fake_library.onnxruntime_library()
    }  # fmt: skip
    command = [sys.executable, str(HERE / "run_real_bindings.py"), str(site), ",".join([str(fake), *others])]
    command += [str(bundle), str(tmp_path / "picture.npy"), str(tmp_path / "result.npz")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "result.npz")
    assert str(found["version"]) == release
    assert found["same"] and found["graphs"] > 0
    assert (found["left"], found["bytes"]) == (0, 0), "everything was given back"
    np.testing.assert_allclose(found["boxes"], reference.detections.xyxy, atol=1e-3)
    expected = np.stack([reference.masks.full(index) for index in range(len(reference))])
    assert (found["masks"] != expected).mean() < 1e-5
