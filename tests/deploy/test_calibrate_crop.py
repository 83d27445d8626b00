"""A crop segmenter in INT8: ranges from crops of found objects, an open number of crops, a gate that names it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from crop_nets import tiny_net

import edgekd
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.calibrate import CalibrateOptions, calibrate_models
from edgekd.deploy.export_crop import export_crop_models
from edgekd.deploy.gate import apply_gate
from edgekd.deploy.gate_limits import Gate, GateOptions
from edgekd.deploy.qdq import quantized_layers
from edgekd.deploy.stage_inputs import MAX_CROPS, StageInputs
from edgekd.errors import DataError
from edgekd.measure.quality import Sample
from edgekd.model_set import ModelSet, Source, read_model_set
from edgekd.package_files import default_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crop8") / "models"
    net = tiny_net()
    with torch.no_grad():
        net.mask.bias -= net(torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8))[0].mean()
    export_crop_models(default_models(), net, Source(name="r", sha256="0", licence="none", trained=False), folder)
    return folder


@pytest.fixture(scope="module")
def pictures(models: Path, scene: np.ndarray) -> Path:
    folder = models.parent / "pictures"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), scene)
    cv2.imwrite(str(folder / "b.png"), np.ascontiguousarray(scene[:, ::-1]))
    return folder


@pytest.fixture(scope="module")
def quantized(models: Path, pictures: Path) -> Path:
    folder = models.parent / "int8"
    calibrate_models(models, pictures, folder, CalibrateOptions("cpu", "minmax", ("segmenter",)))
    return folder


def described(folder: Path) -> ModelSet:
    return read_model_set(folder)


def test_ranges_are_measured_on_crops_of_found_objects(models: Path, pictures: Path) -> None:
    fed = StageInputs(models, described(models), "segmenter", sorted(pictures.iterdir()))
    batches = [feed["crops"] for feed in fed.feeds()]
    assert fed.shape == ("n_boxes", 32, 32, 3) and len(batches) == 2
    assert all(0 < len(crops) <= MAX_CROPS and crops.dtype == np.uint8 for crops in batches)


def test_pictures_without_objects_are_refused(models: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((96, 96, 3), 114, np.uint8))
    with pytest.raises(DataError, match="the detector finds no object on 1 calibration pictures"):
        list(StageInputs(models, described(models), "segmenter", [tmp_path / "grey.png"]).feeds())


def test_all_convolutions_but_the_last_are_int8(quantized: Path) -> None:
    stage = described(quantized).stages["segmenter"]
    graph = onnx.load(quantized / stage.file)
    layers = quantized_layers(graph)
    n_convolutions = sum(node.op_type == "Conv" for node in graph.graph.node)
    assert len(layers) == n_convolutions - 1 and "mask" not in layers
    assert stage.quantized and stage.inputs[0].shape[0] == stage.outputs[0].shape[0] == "n_boxes"


def test_int8_masks_stay_close(models: Path, quantized: Path, scene: np.ndarray, tmp_path: Path) -> None:
    for folder, precision in ((models, "fp32"), (quantized, "int8")):
        build_bundle(folder, tmp_path / precision, BuildOptions("openvino", precision, detector_px=(320, 480)))
    with edgekd.load(str(tmp_path / "fp32")) as plain, edgekd.load(str(tmp_path / "int8")) as int8:
        boxes = plain.detect(scene).xyxy[:5]
        pairs = [(plain(scene, boxes=boxes).masks.full(i), int8(scene, boxes=boxes).masks.full(i)) for i in range(5)]
    assert np.mean([(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs]) > 0.9


def test_the_gate_returns_layers_of_the_segmenter_to_float(quantized: Path, pictures: Path, tmp_path: Path) -> None:
    options = BuildOptions("onnxruntime", "int8", detector_px=(320, 480))
    wanted = GateOptions(Gate({"mask_iou": 0.5}), Sample(tuple(sorted(pictures.iterdir()))))
    manifest = apply_gate(quantized, tmp_path / "bundle", options, wanted)
    assert manifest.stages["segmenter"].precision == "int8"
    assert manifest.gate is not None and manifest.gate.passed and manifest.gate.measured["mask_iou"] > 0.5
