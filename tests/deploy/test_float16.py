"""float32 graphs become float16 with islands, and compute the same to float16's precision."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.deploy.float16 import fp32_node_names, is_quantized, read_onnx, to_float16
from edgekd.errors import ModelError

sys.path.insert(0, str(Path(__file__).parent))
import onnx_graphs

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def run(model, **feeds):
    """Run as written: ONNX Runtime's fusions of Q/DQ pairs with float16 scales are wrong on a CPU."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def types_of(model):
    """Output type of every node, by its name."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in [*graph.value_info, *graph.output]}
    return {node.name: types[node.output[0]] for node in graph.node}


def test_weights_and_convolutions_become_float16_and_ends_stay_float32():
    model = onnx_graphs.convolution()
    half = to_float16(model)
    assert {tensor.data_type for tensor in half.graph.initializer} == {FLOAT16}
    assert types_of(half)["conv"] == FLOAT16
    ends = [*half.graph.input, *half.graph.output]
    assert [(value.name, value.type.tensor_type.elem_type) for value in ends] == [("x", FLOAT), ("y", FLOAT)]
    assert half.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"


def test_the_given_graph_is_not_changed():
    model = onnx_graphs.attention()
    before = model.SerializeToString()
    to_float16(model)
    assert model.SerializeToString() == before


def test_softmax_and_norm_are_float32_islands():
    types = types_of(to_float16(onnx_graphs.attention()))
    assert (types["norm"], types["softmax"]) == (FLOAT, FLOAT)
    assert (types["project"], types["scores"], types["mix"]) == (FLOAT16,) * 3


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-2, 1e3), seed=st.integers(0, 2**16))
def test_a_written_out_norm_does_not_overflow(scale, seed):
    """The squares reach 1e6 and more: a cast to float16 inside the island would make them infinite."""
    x = (np.random.default_rng(seed).standard_normal((1, 64)) * scale).astype(np.float32)
    model = onnx_graphs.variance()
    np.testing.assert_allclose(run(to_float16(model), x=x), run(model, x=x), rtol=4e-3, atol=1e-4)


def test_coordinates_keep_their_precision_up_to_the_sine(monkeypatch):
    model = onnx_graphs.position_encoding()
    boxes = np.random.default_rng(4).uniform(0, 1024, (64, 2)).astype(np.float32)
    assert fp32_node_names(model) == {"scale", "angle", "sine"}
    error = np.abs(run(to_float16(model), boxes=boxes) - run(model, boxes=boxes)).max()
    monkeypatch.setattr("edgekd.deploy.float16.ANGLE_OPS", ())
    error_without = np.abs(run(to_float16(model), boxes=boxes) - run(model, boxes=boxes)).max()
    assert 4 * error < error_without


@pytest.mark.parametrize("name", ["conv", "c"])
def test_a_pinned_node_stays_in_float32(name):
    half = to_float16(onnx_graphs.convolution(), [name])
    assert types_of(half)["conv"] == FLOAT
    assert types_of(half)["relu"] == FLOAT16
    assert {tensor.data_type for tensor in half.graph.initializer} == {FLOAT}


def test_an_unknown_pin_is_refused():
    with pytest.raises(ModelError, match="no node and no tensor nowhere"):
        to_float16(onnx_graphs.convolution(), ["nowhere"])


def test_a_constant_beyond_float16_keeps_its_node_in_float32():
    model = onnx_graphs.convolution()
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, 0] = 1e6
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
    assert fp32_node_names(model) == {"conv"}
    assert fp32_node_names(onnx_graphs.convolution()) == set()


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_a_quantized_graph_gets_float16_scales(opset):
    model = onnx_graphs.quantized_convolution(opset=opset)
    half = to_float16(model)
    assert is_quantized(half) and not is_quantized(onnx_graphs.convolution())
    assert half.opset_import[0].version == max(opset, 19)
    types = types_of(half)
    assert (types["x_quantize"], types["x_dequantize"], types["w_dequantize"]) == (
        onnx.TensorProto.INT8,
        FLOAT16,
        FLOAT16,
    )
    x = np.random.default_rng(5).standard_normal((1, 3, 16, 16)).astype(np.float32)
    # A rounding step of the input (0.05) may fall the other way; each moves an output by at most 0.05 * |w|.
    difference = np.abs(run(half, x=x) - run(model, x=x))
    assert np.median(difference) < 0.01 and difference.max() < 0.05 * 127 * 0.02 * 2


def test_a_scale_too_small_for_float16_stays_in_float32():
    half = to_float16(onnx_graphs.quantized_convolution(scale=1e-6))
    assert types_of(half)["w_dequantize"] == FLOAT
    assert types_of(half)["conv"] == FLOAT16


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "does not exist"), (b"", "whole ONNX"), (b"\x08\x07garbage", "whole ONNX")]
)
def test_a_file_that_is_no_graph_is_refused(content, reason, tmp_path):
    path = tmp_path / "graph.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        read_onnx(path)


def test_a_truncated_graph_is_refused(tmp_path):
    path = tmp_path / "graph.onnx"
    content = onnx_graphs.convolution().SerializeToString()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="whole ONNX"):
        read_onnx(path)
