"""Model set to bundle: what is written, what is refused, and nothing left behind by a failure."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgekd
from edgekd.bundle import read_manifest
from edgekd.deploy import openvino_build
from edgekd.deploy.auto_precision import relative_error
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.errors import BuildError, InputError, ModelError
from edgekd.graphs import STAGES_OF_KIND
from edgekd.model_set import read_model_set
from edgekd.package_files import default_models

SMALL = BuildOptions(precision="fp32", detector_px=(320, 320), encoder_px=(128, 128))


def quiet(line: str) -> None:
    """Swallow the build's report."""


def test_the_manifest_says_what_was_built(shipped_bundle: Path) -> None:
    manifest = read_manifest(shipped_bundle)
    models = read_model_set(default_models())
    assert manifest.backend == "openvino"
    for name in STAGES_OF_KIND["sam"]:
        assert manifest.stages[name].precision == "fp32"
        assert manifest.stages[name].onnx_sha256 == models.stages[name].sha256
    assert [type(size) for size in manifest.stages["encoder"].inputs[0].shape] == [int, int, str, str]
    assert manifest.pipeline.encoder_input.height_px == 256
    assert (160, 256) in manifest.pipeline.encoder_input.smaller_sizes_px


def test_onnxruntime_and_openvino_agree(tmp_path: Path, shipped_bundle: Path, scene: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    options = BuildOptions(backend="onnxruntime", precision="fp32", encoder_px=(256, 256))
    build_bundle(default_models(), tmp_path / "b", options, quiet)
    with edgekd.load(tmp_path / "b") as reference, edgekd.load(shipped_bundle) as chain:
        expected, got = reference(scene), chain(scene)
    np.testing.assert_allclose(got.detections.xyxy, expected.detections.xyxy, atol=0.05)
    np.testing.assert_allclose(got.detections.confidence, expected.detections.confidence, atol=1e-3)
    for index in range(len(expected)):
        a, b = got.masks.full(index), expected.masks.full(index)
        assert (a & b).sum() >= 0.99 * (a | b).sum()


def test_auto_precision_measures_and_says_so(tmp_path: Path) -> None:
    options = BuildOptions(detector_px=(320, 320), encoder_px=(128, 128))
    manifest = build_bundle(default_models(), tmp_path / "b", options, quiet)
    assert all("bf16" in note for note in manifest.notes)
    assert relative_error(np.array([1.1], np.float32), np.array([1.0], np.float32)) == pytest.approx(0.1, rel=1e-3)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    cases = [
        (BuildOptions(backend="onnxruntime", precision="bf16"), "precision is bf16 and onnxruntime builds fp32, int8"),
        (BuildOptions(precision="int8"), "edgekd calibrate"),
        (BuildOptions(box_buckets=(8, 4)), "ascending"),
        (BuildOptions(encoder_px=(500, 512)), "multiple of 32"),
    ]
    for options, words in cases:
        with pytest.raises(BuildError, match=words):
            build_bundle(default_models(), tmp_path / "b", options, quiet)
    assert not (tmp_path / "b").exists()


def test_damaged_model_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="edgekd export"):
        build_bundle(tmp_path, tmp_path / "b", SMALL, quiet)
    models = tmp_path / "models"
    shutil.copytree(default_models(), models)
    (models / "decoder.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match="sha256 differs"):
        build_bundle(models, tmp_path / "b", SMALL, quiet)
    description = json.loads((models / "models.json").read_text())
    description["stages"]["encoder"]["file"] = "../outside.onnx"
    (models / "models.json").write_text(json.dumps(description))
    with pytest.raises(ModelError, match="lacks the file"):
        build_bundle(models, tmp_path / "b", SMALL, quiet)


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()])
def test_a_failing_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    def fail(*arguments: object) -> None:
        raise failure

    monkeypatch.setattr(openvino_build, "write_network", fail)
    with pytest.raises((InputError, KeyboardInterrupt)):
        build_bundle(default_models(), tmp_path / "b", SMALL, quiet)
    assert list(tmp_path.iterdir()) == []
