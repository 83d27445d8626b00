"""The shipped graphs as checkpoints: they compute what the graphs compute, can be trained, and go with any partner."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("ultralytics")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from edgekd.deploy.export import ExportOptions, pipeline_of
from edgekd.errors import BackendUnavailable, InputError, ModelError
from edgekd.model_set import read_model_set
from edgekd.models import unfold, weights
from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD, PromptDecoder, TinySam, load_tinysam
from edgekd.models.yolo11n import DetectorGraph, facts_of, load_detector
from edgekd.package_files import default_models

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both shipped models, by name, as `edgekd weights export` writes them."""
    folder = tmp_path_factory.mktemp("weights")
    found = {name: folder / f"mine{suffix}" for name, suffix in weights.SHIPPED.items()}
    for name, file in found.items():
        weights.export_shipped(name, file)
    return found


def test_the_scale_of_the_training_stays_with_the_weights(files: dict[str, Path]) -> None:
    detector = load_detector(files[weights.SHIPPED_DETECTOR])
    recorded = read_model_set(default_models()).pipeline.trained_scale
    assert recorded == 0.678 and facts_of(detector).trained_scale == recorded
    assert pipeline_of(detector, "sam", ExportOptions()).trained_scale == recorded


@pytest.fixture(scope="module")
def segmenter(files: dict[str, Path]) -> TinySam:
    return load_tinysam(files[weights.SHIPPED_SEGMENTER])


def shipped(stage: str, **feeds: torch.Tensor) -> list[np.ndarray]:
    import onnxruntime

    session = onnxruntime.InferenceSession(default_models() / f"{stage}.onnx", providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in feeds.items()})


def assert_equal(found: Iterable[torch.Tensor | np.ndarray], expected: list[np.ndarray], atol: float = 1e-3) -> None:
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours), theirs, atol=atol, rtol=0)


def square(scene: np.ndarray, side: int) -> torch.Tensor:
    """The middle of the demonstration picture, (1, 3, side, side) RGB 0..255."""
    top, left = (scene.shape[0] - side) // 2, (scene.shape[1] - side) // 2
    crop = scene[top : top + side, left : left + side, ::-1]
    return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))).float()[None]


@torch.no_grad()
def test_the_detector_computes_what_its_graph_computes(files, scene) -> None:
    detector = load_detector(files[weights.SHIPPED_DETECTOR])
    images = square(scene, 256) / 255
    assert_equal(DetectorGraph(detector)(images), shipped("detector", images=images))
    assert detector.names[0] == "airplane" and len(detector.names) == 10


@torch.no_grad()
def test_the_segmenter_computes_what_its_graphs_compute(segmenter, scene) -> None:
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    image = (square(scene, 256) - mean) / std
    embeddings = segmenter.image_encoder(image)
    assert_equal((embeddings,), shipped("encoder", image=image))
    boxes = torch.tensor([[10.0, 20.0, 100.0, 90.0], [50.0, 50.0, 200.0, 180.0]])
    expected = shipped("decoder", image_embeddings=embeddings, boxes=boxes)
    logits, iou = PromptDecoder(segmenter)(embeddings, boxes)
    assert_equal([iou], expected[1:])
    assert_equal([logits], expected[:1], atol=5e-3)  # the graph holds the position code twice, rounded apart
    assert ((logits.numpy() > 0) == (expected[0] > 0)).all() and segmenter.draws_prompts


def test_stored_as_float16_again_the_position_codes_are_the_shipped_ones(segmenter) -> None:
    """The graph holds the frequencies twice, once times 4 pi; both roundings must come back from one matrix."""
    constants = unfold.read_constants(default_models() / "decoder.onnx").constants
    frequencies = segmenter.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
    plain = constants["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(frequencies.half().float(), plain)
    assert torch.equal((frequencies * (4 * math.pi)).half().float(), constants["mul_1"])


@torch.no_grad()
def test_norms_expect_what_they_see(scene) -> None:
    """In training mode, with the statistics of its own batch, an unfolded network stays close to itself."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    image = (square(scene, 448) - mean) / std
    errors = []
    for encoder in (unfold.shipped_segmenter().image_encoder, unfold.folded_segmenter().image_encoder):
        expected = encoder.eval()(image)
        errors.append(float((encoder.train()(image) - expected).norm() / expected.norm()))
    assert errors[0] < 0.5 * errors[1], errors


def test_a_name_is_a_checkpoint_wherever_one_is_taken(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "cache"))
    file = weights.resolve("tinysam-nwpu")
    assert file.name == "tinysam-nwpu.pth" and load_tinysam(file).draws_prompts
    stamp = file.stat().st_mtime_ns
    assert weights.resolve("tinysam-nwpu") == file and file.stat().st_mtime_ns == stamp
    assert weights.resolve(str(tmp_path)) == tmp_path  # a folder, such as SAM3's


def test_what_cannot_be_exported(tmp_path, monkeypatch) -> None:
    with pytest.raises(InputError, match="no shipped weights are named 'yolo11n'"):
        weights.export_shipped("yolo11n", tmp_path / "a.pt")
    with pytest.raises(InputError, match="does not end in .pt"):
        weights.export_shipped("yolo11n-nwpu", tmp_path / "a.onnx")
    monkeypatch.setattr(weights, "has_module", lambda name: name != "onnx")
    with pytest.raises(BackendUnavailable, match="needs onnx"):
        weights.export_shipped("tinysam-nwpu", tmp_path / "a.pth")
    monkeypatch.setattr(unfold, "NORMS", tmp_path / "absent.npz")
    with pytest.raises(ModelError, match="install edgekd again"):
        unfold.shipped_segmenter()
