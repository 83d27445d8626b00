"""Symmetric Q/DQ graphs of both networks build with TensorRT-RTX on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from small_models import write_pictures

from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.calibrate import CalibrateOptions, calibrate_models
from edgekd.package_files import default_models

MAX_ENCODER_BYTES = 40_000_000

pytestmark = pytest.mark.tensorrt


def test_both_networks_build_for_an_ada_gpu(tmp_path: Path, scene: np.ndarray) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: no engine can be built")
    pictures = write_pictures(tmp_path / "pictures", scene, n=1)
    calibrate_models(default_models(), pictures, tmp_path / "models", CalibrateOptions("tensorrt", "minmax"))
    options = BuildOptions("tensorrt-rtx", "int8", compute_capability="8.9")
    manifest = build_bundle(tmp_path / "models", tmp_path / "bundle", options, lambda line: None)
    assert [manifest.stages[name].precision for name in ("detector", "encoder", "decoder")] == ["int8", "int8", "fp16"]
    assert manifest.stages["encoder"].files[0].n_bytes <= MAX_ENCODER_BYTES
    facts = manifest.stages["encoder"].calibration
    assert facts is not None and facts["target"] == "tensorrt"
