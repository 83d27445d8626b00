"""An oriented bundle from end to end: C gives Python's corners, classes, order and masks, on either CPU backend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from oriented_nets import write_oriented_models
from test_parity import assert_same

import edgekd
from edgekd.capi.library import CChain, Library
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.runtime.chain import ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.oriented import turned_ious
from edgekd.runtime.segment import MaskOptions

OPTIONS = ChainOptions(DetectOptions(confidence=0.05, max_boxes=40), MaskOptions(min_region_px=20))


@pytest.fixture(scope="module")
def bundles(built: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same oriented models for both CPU backends; C has a module for OpenVINO alone."""
    pytest.importorskip("onnx")
    if not (built / "prefix" / "lib" / "libedgekd_openvino.so").is_file():
        pytest.skip("the OpenVINO module was not built: this Python's OpenVINO has no headers")
    folder = tmp_path_factory.mktemp("oriented")
    models = write_oriented_models(folder / "models")
    for backend in ("openvino", "onnxruntime"):
        options = BuildOptions(backend=backend, precision="fp32", detector_px=(320, 320), square=True)
        build_bundle(models, folder / backend, options)
    return {backend: folder / backend for backend in ("openvino", "onnxruntime")}


def pictures(scene: np.ndarray) -> list[np.ndarray]:
    """The scene, parts of it that are letterboxed on either side, and the scene lying on its side."""
    parts = [scene, scene[:400, 200:900], scene[100:, 300:620], scene.transpose(1, 0, 2), scene[::-1, ::-1]]
    return [np.ascontiguousarray(part) for part in parts]


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_turned_boxes_are_the_same(library: Library, bundles: dict[str, Path], backend: str, scene: np.ndarray) -> None:
    n_turned = 0
    with edgekd.load(bundles[backend], n_threads=1) as python, CChain.open(library, bundles["openvino"], 1) as c:
        for picture in pictures(scene):
            found, answer = python(picture, OPTIONS), c(picture, OPTIONS)
            assert_same(found, answer)
            ours, theirs = found.detections.corners, answer.detections.corners
            assert ours is not None and theirs is not None
            assert turned_ious(ours, theirs).diagonal().min(initial=1) >= 0.99
            n_turned += int((np.abs(ours[:, 1, 1] - ours[:, 0, 1]) > 1).sum())
    assert n_turned > 20


def test_options_hold_for_turned_boxes(library: Library, bundles: dict[str, Path], scene: np.ndarray) -> None:
    options = ChainOptions(DetectOptions(confidence=0.02, iou=0.3, max_boxes=5, multi_label=True), masks=False)
    with edgekd.load(bundles["openvino"], n_threads=1) as python, CChain.open(library, bundles["openvino"], 1) as c:
        detections = python.detect(scene, options.detect)
        answer = c(scene, options).detections
    assert len(answer) == 5 and answer.corners is not None and detections.corners is not None
    np.testing.assert_allclose(answer.corners, detections.corners, atol=0.5)
    np.testing.assert_array_equal(answer.class_id, detections.class_id)


@pytest.mark.assets
def test_aerial_pictures(library: Library, bundles: dict[str, Path], assets: Path) -> None:
    files = sorted((assets / "data" / "nwpu_vhr10" / "images").iterdir())[:200:20]
    n_boxes = 0
    with edgekd.load(bundles["openvino"], n_threads=1) as python, CChain.open(library, bundles["openvino"], 1) as c:
        for file in files:
            picture = edgekd.read_picture(file)
            found = python(picture, OPTIONS)
            assert_same(found, c(picture, OPTIONS))
            n_boxes += len(found)
    assert n_boxes > 50
