"""All three real stages become TensorRT-RTX plans for SM 89 on a machine without a GPU, in float32, float16, INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from edgekd.deploy.onnx_edit import fix_shapes
from edgekd.deploy.tensorrt_build import PlanOptions, build_plan
from edgekd.graphs import STAGES_OF_KIND
from edgekd.model_set import ModelSet, read_model_set
from edgekd.package_files import default_models

BOXES = (1, 8, 32)


@pytest.fixture(scope="module", autouse=True)
def rtx():
    """Skip where TensorRT-RTX is not installed."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")


@pytest.fixture(scope="module")
def model_set() -> ModelSet:
    """The graphs that ship with the package."""
    return read_model_set(default_models())


def profiles_of(stage, model_set):
    """Shape profiles at the sizes of the shipped pipeline; only the number of boxes stays open."""
    detector, encoder = model_set.pipeline.detector_input, model_set.pipeline.encoder_input
    sizes = {
        "images": (1, 3, detector.height_px, detector.width_px),
        "image": (1, 3, encoder.height_px, encoder.width_px),
        "image_embeddings": (1, 256, encoder.height_px // 16, encoder.width_px // 16),
    }
    boxes = tuple((n_boxes, 4) for n_boxes in BOXES)
    return {spec.name: boxes if spec.name == "boxes" else (sizes[spec.name],) * 3 for spec in stage.inputs}


@pytest.mark.tensorrt
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", STAGES_OF_KIND["sam"])
def test_a_shipped_stage_builds(name, precision, model_set):
    stage = model_set.stages[name]
    path = default_models() / stage.file
    plan = build_plan(path, PlanOptions(True, "8.9", precision, profiles_of(stage, model_set)))
    n_weight_bytes = path.stat().st_size  # the shipped files store their weights in two bytes each
    assert plan[:4] == b"vtrt"
    assert len(plan) > n_weight_bytes * {"fp32": 1.6, "fp16": 0.9}[precision]


class RandomPicture(CalibrationDataReader):
    """One random picture: enough to place the Q/DQ pairs, not to be accurate."""

    def __init__(self):
        self.pictures = [np.random.default_rng(0).random((1, 3, 256, 256), np.float32)]

    def get_next(self):
        return {"images": self.pictures.pop()} if self.pictures else None


@pytest.mark.tensorrt
def test_the_quantized_detector_builds(model_set, tmp_path):
    fixed, quantized = tmp_path / "fixed.onnx", tmp_path / "quantized.onnx"
    model = onnx.load(default_models() / model_set.stages["detector"].file)
    onnx.save(fix_shapes(model, {"images": (1, 3, 256, 256)}), fixed)
    quantize_static(
        fixed,
        quantized,
        RandomPicture(),
        op_types_to_quantize=["Conv"],
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False},
    )
    n_pairs = sum(node.op_type == "QuantizeLinear" for node in onnx.load(quantized).graph.node)
    assert n_pairs > 80
    assert build_plan(quantized, PlanOptions(True, "8.9", "int8"))[:4] == b"vtrt"
