"""ONNX to OpenVINO's files: which layers keep fp32, that the mark survives, and that it does what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.deploy.auto_precision import mask_iou
from edgekd.deploy.openvino_build import check_precision, depending_on, read_network, write_network
from edgekd.errors import BuildError
from edgekd.model_set import read_model_set
from edgekd.package_files import default_models
from edgekd.runtime.engines import Engine
from edgekd.runtime.engines.openvino import OpenVinoEngine

SHAPES = {"image_embeddings": (1, 256, 64, 64), "boxes": (-1, 4)}
CORNERS = np.random.default_rng(1).uniform(500, 800, (8, 2))
BOXES = np.concatenate([CORNERS, CORNERS + np.random.default_rng(2).uniform(20, 200, (8, 2))], axis=1).astype(
    np.float32
)


def decoder_onnx() -> Path:
    """The shipped decoder."""
    return default_models() / read_model_set(default_models()).stages["decoder"].file


def masks(engine: Engine) -> np.ndarray:
    """Logits (8, 256, 256) of eight boxes on random embeddings."""
    embeddings = np.random.default_rng(0).standard_normal((1, 256, 64, 64), np.float32)
    return engine.infer({"image_embeddings": embeddings, "boxes": BOXES})["low_res_masks"].copy()


def without_marks(xml: Path) -> Path:
    """The same network, as if nothing had been marked."""
    plain = xml.with_name("plain.xml")
    plain.write_text(xml.read_text().replace("DisablePrecisionConversion", "SomethingElse"))
    plain.with_suffix(".bin").write_bytes(xml.with_suffix(".bin").read_bytes())
    return plain


def test_only_what_boxes_alone_decide_is_marked(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    files = write_network(openvino.Core(), decoder_onnx(), SHAPES, tmp_path / "decoder.xml")
    assert [file.name for file in files] == ["decoder.xml", "decoder.bin"]
    model = openvino.Core().read_model(files[0])
    marked = {node.get_friendly_name() for node in model.get_ops() if "DisablePrecisionConversion_0" in node.rt_info}
    assert marked
    assert not marked & depending_on(model, "image_embeddings")
    assert marked <= depending_on(model, "boxes")


def test_a_network_without_boxes_is_left_alone() -> None:
    openvino = pytest.importorskip("openvino")
    detector = default_models() / read_model_set(default_models()).stages["detector"].file
    model = read_network(openvino.Core(), detector)
    assert not any("DisablePrecisionConversion_0" in node.rt_info for node in model.get_ops())


def test_bf16_masks_know_where_their_boxes_are(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16 arithmetic")
    xml = write_network(openvino.Core(), decoder_onnx(), SHAPES, tmp_path / "decoder.xml")[0]
    expected = masks(OpenVinoEngine.open(xml, "fp32", 2))
    got = masks(OpenVinoEngine.open(xml, "bf16", 2))
    rounded = masks(OpenVinoEngine.open(without_marks(xml), "bf16", 2))
    near_an_edge = np.abs(expected) < 3
    error, unmarked_error = (float(np.abs(cells - expected)[near_an_edge].mean()) for cells in (got, rounded))
    assert error < 0.3 * unmarked_error
    assert mask_iou(got, expected) > max(0.98, mask_iou(rounded, expected))


def test_mask_iou_counts_masks() -> None:
    one, none = np.ones((1, 2, 2)), -np.ones((1, 2, 2))
    half = np.concatenate([np.ones((1, 1, 2)), -np.ones((1, 1, 2))], axis=1)
    assert mask_iou(one, one) == 1.0
    assert mask_iou(none, none) == 1.0
    assert mask_iou(one, none) == 0.0
    assert mask_iou(np.concatenate([half, one]), np.concatenate([one, one])) == 0.75


def test_an_arithmetic_that_this_processor_lacks_is_refused_at_the_build() -> None:
    class Core:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8", "BIN"]

    check_precision(Core(), "int8")
    for precision in ("bf16", "fp16"):
        with pytest.raises(BuildError, match=f"{precision} was asked for and this CPU computes in BIN, FP32, INT8"):
            check_precision(Core(), precision)  # type: ignore[arg-type]
