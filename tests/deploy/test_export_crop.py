"""The crop segmenter as ONNX: equal to PyTorch, open number of crops, run by both CPU backends, built for four GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from crop_nets import tiny_net

import edgekd
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.export_crop import export_crop_models, export_segmenter, folded
from edgekd.errors import InputError, ModelError
from edgekd.model_set import Source, read_model_set, write_model_set
from edgekd.models.crop_segmenter import SIZES, CropSegmenter
from edgekd.package_files import default_models
from edgekd.train.finetune.crop_teacher import open_teacher

SOURCE = Source(name="random", sha256="0" * 64, licence="none", trained=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crop") / "models"
    export_crop_models(default_models(), shaken(tiny_net()), SOURCE, folder)
    return folder


def shaken(net: CropSegmenter) -> CropSegmenter:
    """Running statistics that folding has something to do with, and logits around zero, so that masks have edges."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
    with torch.no_grad():
        net.mask.bias -= net(torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8))[0].mean()
    return net


def test_folding_changes_nothing() -> None:
    net = shaken(tiny_net())
    crops = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    for before, after in zip(net(crops), folded(net)(crops), strict=True):
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)


def test_the_graph_equals_pytorch_for_any_number_of_crops(models: Path) -> None:
    import onnxruntime

    stage = read_model_set(models).stages["segmenter"]
    assert stage.max_abs_difference is not None and stage.max_abs_difference <= 1e-4
    assert stage.inputs[0].dtype == "uint8" and stage.inputs[0].shape == ("n_boxes", 32, 32, 3)
    session = onnxruntime.InferenceSession(str(models / stage.file), providers=["CPUExecutionProvider"])
    crops = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), np.uint8)
    assert session.run(None, {"crops": crops})[0].shape == (7, 32, 32)


def test_both_cpu_backends_agree(models: Path, scene: np.ndarray, tmp_path: Path) -> None:
    boxes = np.array([[100, 100, 180, 160], [300, 200, 330, 260], [0, 0, 60, 60]], np.float32)
    masks = {}
    for backend in ("openvino", "onnxruntime"):
        options = BuildOptions(backend, "fp32", detector_px=(320, 320), square=True)
        build_bundle(models, tmp_path / backend, options)
        with edgekd.load(str(tmp_path / backend), n_threads=1) as chain:
            masks[backend] = chain(scene, boxes=boxes).masks
    for index in range(3):
        first, second = (found.full(index) for found in masks.values())
        assert first.any() and (first & second).sum() >= 0.99 * (first | second).sum()
    with pytest.raises(InputError, match="is a bundle of the kind crop, expected the kind sam"):
        open_teacher(tmp_path / "openvino")


def test_a_detector_that_does_not_fit_is_refused(models: Path, tmp_path: Path) -> None:
    known = read_model_set(models)
    stage = known.stages["detector"].model_copy(update={"quantized": True})
    changed = tmp_path / "changed"
    changed.mkdir()
    for name in ("detector.onnx", "segmenter.onnx"):
        (changed / name).write_bytes((models / name).read_bytes())
    write_model_set(changed, known.model_copy(update={"stages": {**known.stages, "detector": stage}}))
    with pytest.raises(ModelError, match="the detector is quantized, expected a float detector"):
        export_crop_models(changed, tiny_net(), SOURCE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("medium") / "segmenter.onnx"
    export_segmenter(CropSegmenter(SIZES["M"]).eval(), path, SOURCE, half_storage=True)
    return path


@pytest.mark.tensorrt
@pytest.mark.parametrize("compute_capability", ["7.5", "8.6", "8.9", "12.0"])
def test_plans_for_four_gpus(compute_capability: str, medium: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")
    from edgekd.deploy.tensorrt_build import PlanOptions, build_plan

    shapes = tuple((n, 96, 96, 3) for n in (1, 16, 16))
    options = PlanOptions(rtx=True, compute_capability=compute_capability, precision="fp16", profiles={"crops": shapes})
    n_bytes = medium.stat().st_size  # fp16 weights, nearly all of the file
    assert 0.9 * n_bytes < len(build_plan(medium, options)) < 2 * n_bytes


@pytest.mark.assets
def test_a_checkpoint_of_a_detector_goes_with_a_crop_segmenter(assets: Path, tmp_path: Path) -> None:
    from edgekd.deploy.export_models import ModelChoice, export_models
    from edgekd.models.crop_segmenter import checkpoint_of

    torch.save(checkpoint_of(tiny_net()), tmp_path / "crop.pth")
    choice = ModelChoice(
        detector=str(assets / "assets" / "yolo11n_coco.pt"),
        segmenter=str(tmp_path / "crop.pth"),
        detector_px=(320, 320),
    )
    known = export_models(tmp_path / "models", choice)
    assert known.kind == "crop" and read_model_set(tmp_path / "models") == known
    assert len(known.pipeline.class_names) == 80 and known.pipeline.crop is not None
    with pytest.raises(InputError, match="knows the classes of yolo11n-nwpu"):
        export_models(tmp_path / "other", ModelChoice(detector=choice.detector, segmenter="crop-nwpu"))
