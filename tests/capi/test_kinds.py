"""Bundles of the kinds beside `sam`: C gives the boxes and masks of Python, and refuses what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kind_models import write_crop_models, write_segment_checkpoint
from test_parity import assert_same

import edgekd
from edgekd.capi.library import CChain, Library
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.errors import InputError
from edgekd.runtime.chain import ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.segment import MaskOptions

OPTIONS = ChainOptions(DetectOptions(confidence=0.05), MaskOptions(min_region_px=20))


@pytest.fixture(scope="module")
def crop_bundle(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    if not (built / "prefix" / "lib" / "libedgekd_openvino.so").is_file():
        pytest.skip("the OpenVINO module was not built: this Python's OpenVINO has no headers")
    folder = tmp_path_factory.mktemp("crop")
    options = BuildOptions(precision="fp32", detector_px=(320, 320), square=True, box_buckets=(1, 4))
    build_bundle(write_crop_models(folder / "models"), folder / "bundle", options)
    return folder / "bundle"


def test_crop_masks_are_the_same(library: Library, crop_bundle: Path, scene: np.ndarray) -> None:
    boxes = np.array(
        [
            [5, 5, 6, 6],
            [7, 7, 7, 7],
            [-50, -50, 2000, 2000],
            [950, 630, 970, 650],
            [0, 0, 1, 640],
            [30.2, 40.7, 90.1, 99.9],
        ],
        np.float32,
    )
    with edgekd.load(crop_bundle, n_threads=1) as python, CChain.open(library, crop_bundle, 1) as c:
        found = python(scene, OPTIONS)
        assert len(found) > 10
        assert_same(found, c(scene, OPTIONS))
        assert_same(python(scene, boxes=boxes), c(scene, boxes=boxes))
        times = c.times_ms()
        assert times["segmenter"] > 0 and times["segmenter_preprocess"] > 0 and times["encoder"] == 0


@pytest.mark.parametrize(
    ("box", "words"),
    [((9, 9, 5, 12), "is inverted"), ((2000, 0, 2100, 9), "lies outside"), ((np.nan, 0, 1, 1), "finite")],
)
def test_impossible_boxes_are_refused_by_both(
    library: Library, crop_bundle: Path, scene: np.ndarray, box: tuple[float, ...], words: str
) -> None:
    boxes = np.array([[1, 1, 5, 5], box], np.float32)
    with edgekd.load(crop_bundle) as python, CChain.open(library, crop_bundle, 1) as c:
        for chain in (python, c):
            with pytest.raises(InputError, match=words):
                chain(scene, boxes=boxes)
        assert len(c(scene, boxes=boxes[:1])) == 1


@pytest.mark.assets
def test_segment_networks_give_the_same(
    library: Library, crop_bundle: Path, assets: Path, tmp_path: Path, scene: np.ndarray
) -> None:
    pytest.importorskip("ultralytics")
    from edgekd.deploy.export import ExportOptions, export_networks
    from edgekd.model_set import Source
    from edgekd.models.yolo11n import load_detector

    checkpoint = write_segment_checkpoint(tmp_path / "yolo11n-seg.pt", assets / "assets" / "yolo11n_coco.pt")
    source = {"detector": Source(name="random", sha256="0", licence="none", trained=False)}
    network = load_detector(checkpoint, with_masks=True)
    export_networks(network, None, source, tmp_path / "models", ExportOptions(detector_px=(320, 320)))
    build_bundle(tmp_path / "models", tmp_path / "bundle", BuildOptions(precision="fp32"))
    n_masks = 0
    with edgekd.load(tmp_path / "bundle", n_threads=1) as python, CChain.open(library, tmp_path / "bundle", 1) as c:
        for file in sorted((assets / "data" / "coco128" / "images").rglob("*.jpg"))[:10]:
            picture = edgekd.read_picture(file)
            result = python(picture)
            assert_same(result, c(picture))
            n_masks += len(result)
        with pytest.raises(InputError, match="kind yolo-seg"):
            c(scene, boxes=np.array([[0, 0, 9, 9]], np.float32))
    assert n_masks > 10
