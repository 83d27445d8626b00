"""Q/DQ pairs: where they are, that grouped tensors share a scale, and that the float graph can be had back exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekd.choices import WeightBits
from edgekd.deploy import qdq
from edgekd.deploy.calibrate import name_layers
from edgekd.deploy.calibration_recipes import CalibrationRecipe, recipes_for
from edgekd.deploy.onnx_edit import fix_shapes
from edgekd.deploy.qdq import UnionFind, tie_ranges
from edgekd.environment import describe_machine, saturates_int8
from edgekd.package_files import default_models


@pytest.fixture(scope="module")
def detector() -> onnx.ModelProto:
    model = onnx.load(default_models() / "detector.onnx")
    fixed = fix_shapes(model, {"images": (1, 3, 320, 320)})
    name_layers(model, fixed)
    return fixed


def quantized(model: onnx.ModelProto, recipe: CalibrationRecipe, tied: bool = True) -> onnx.ModelProto:
    """Quantize with made-up ranges, a different one for every tensor."""
    placement = qdq.place_pairs(model, recipe)
    ranges = {name: (-0.3, 1.0 + index / 50) for index, name in enumerate(placement.activations)}
    groups = placement.groups if tied else UnionFind()
    return qdq.insert_pairs(model, placement, tie_ranges(ranges, groups), recipe)


def scales_around(model: onnx.ModelProto, op_type: str) -> list[set[float]]:
    """The scales of all inputs and outputs of each node of this type that has pairs on both sides."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    before = {node.output[0]: node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    after = {node.input[0]: node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    found = []
    for node in model.graph.node:
        if node.op_type != op_type or node.output[0] not in after:
            continue
        inputs = list(node.input) if op_type == "Concat" else [node.input[0]]
        assert all(name in before for name in inputs), f"{node.name} reads a float tensor and puts out INT8"
        found.append({float(values[before[name]]) for name in inputs} | {float(values[after[node.output[0]]])})
    return found


@pytest.mark.parametrize("target", ["tensorrt", "cpu"])
@pytest.mark.parametrize("op_type", ["Concat", "MaxPool", "Resize"])
def test_groups_share_one_scale(detector: onnx.ModelProto, target: str, op_type: str) -> None:
    recipe = recipes_for(target)["detector"]  # type: ignore[arg-type]
    scales = scales_around(quantized(detector, recipe), op_type)
    assert len(scales) == {"Concat": 17, "MaxPool": 3, "Resize": 2}[op_type]
    assert all(len(group) == 1 for group in scales)


def test_without_tying_the_scales_differ(detector: onnx.ModelProto) -> None:
    scales = scales_around(quantized(detector, recipes_for("tensorrt")["detector"], tied=False), "Concat")
    assert any(len(group) > 1 for group in scales)


def test_tensorrt_gets_symmetric_int8_and_float_biases(detector: onnx.ModelProto) -> None:
    model = quantized(detector, recipes_for("tensorrt")["detector"])
    zeros = [numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("_zero_point")]
    assert zeros and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert not any(t.data_type == TensorProto.INT32 for t in model.graph.initializer)
    onnx.checker.check_model(model, full_check=True)


def test_the_cpu_gets_unsigned_activations(detector: onnx.ModelProto) -> None:
    model = quantized(detector, recipes_for("cpu")["detector"])
    types = {t.data_type for t in model.graph.initializer if t.name.endswith("_zero_point") and not t.dims}
    assert types == {TensorProto.UINT8}


def test_what_the_recipe_names_stays_float(detector: onnx.ModelProto) -> None:
    layers = qdq.quantized_layers(quantized(detector, recipes_for("tensorrt")["detector"]))
    assert "model.model.0.conv" in layers
    assert "model.model.23.head.cv2.0.1.conv" in layers
    assert not [name for name in layers if name.endswith(("cv2.0.2", "cv3.1.2")) or ".attn." in name]
    assert "model.model.23.head.cv3.0.0.0.conv" not in layers, "a depthwise convolution"


def test_the_float_graph_comes_back_byte_for_byte(detector: onnx.ModelProto) -> None:
    model = quantized(detector, recipes_for("cpu")["detector"])
    assert qdq.keep_quantized(model, []).SerializeToString() == detector.SerializeToString()


def test_returning_one_layer_leaves_the_others(detector: onnx.ModelProto) -> None:
    model = quantized(detector, recipes_for("cpu")["detector"])
    layers = qdq.quantized_layers(model)
    fewer = qdq.return_to_float(model, layers[:1])
    assert qdq.quantized_layers(fewer) == layers[1:]
    onnx.checker.check_model(fewer, full_check=True)


def test_folded_weights_compute_the_same(detector: onnx.ModelProto) -> None:
    model = quantized(detector, recipes_for("cpu")["detector"])
    folded = qdq.fold_weights(model)
    assert folded.ByteSize() < 0.5 * model.ByteSize()
    picture = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    outputs = []
    for graph in (model, folded):
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs.append(session.run(None, {"images": picture}))
    for a, b in zip(*outputs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_one_convolution_by_hand() -> None:
    """x = 1, 2 with range 0..2.55 and weight 127: U8 steps of 0.01, S8 steps of 1, so that nothing is lost."""
    weight = numpy_helper.from_array(np.array([[[[127.0]]]], np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="layer")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 1, 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    recipe = recipes_for("cpu")["encoder"]
    model = qdq.insert_pairs(model, qdq.place_pairs(model, recipe), {"x": (0.0, 2.55)}, recipe)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.array([[[[1.004, 9.0]]]], np.float32)})
    np.testing.assert_allclose(y.ravel(), [127 * 1.0, 127 * 2.55], rtol=1e-5)


@pytest.mark.parametrize("n_bits", [7, 8])
def test_two_products_stay_within_16_bits_when_weights_have_7(n_bits: WeightBits) -> None:
    weight = np.random.default_rng(0).normal(0, 3, (6, 4, 3, 3)).astype(np.float32)
    scale, zero = qdq.weight_scale(weight, 0, n_bits)
    steps = np.rint(weight / scale.reshape(-1, 1, 1, 1))
    assert np.abs(steps).max() == 2 ** (n_bits - 1) - 1 and not zero.any()
    assert (2 * 255 * np.abs(steps).max() <= 32767) == (n_bits == 7), "sum of two products of U8 and S8"


@pytest.mark.parametrize("n_bits", [7, 8])
def test_sums_of_the_largest_products_saturate_where_it_is_said(n_bits: WeightBits) -> None:
    """576 products of the largest input and weight; where 16-bit sums saturate, 8-bit weights lose half of the sum."""
    weights = {"first": np.ones((64, 64, 3, 3), np.float32), "second": np.full((64, 64, 3, 3), 1 / 576, np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "first"], ["sum"], name="layer1"),
            helper.make_node("Relu", ["sum"], ["r"]),
            helper.make_node("Conv", ["r", "second"], ["y"], name="layer2"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64, 2, 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    recipe = recipes_for("cpu")["encoder"].model_copy(update={"weight_bits": n_bits})
    ranges = {"x": (0.0, 2.55), "r": (0.0, 576 * 2.55)}
    model = qdq.insert_pairs(model, qdq.place_pairs(model, recipe), ranges, recipe)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": np.full((1, 64, 6, 6), 2.55, np.float32)})
    if n_bits == 8 and saturates_int8(describe_machine().isa):
        assert y.max() < 0.6 * 576 * 2.55
    else:
        np.testing.assert_allclose(y, 576 * 2.55, rtol=1e-3)


@given(st.floats(-50, 50), st.floats(-50, 50), st.booleans())
def test_zero_is_exact_and_the_range_is_covered(a: float, b: float, signed: bool) -> None:
    low, high = min(a, b), max(a, b)
    scale, zero = qdq.activation_scale((low, high), signed)
    steps = np.iinfo(zero.dtype)
    lowest, highest = (float(scale) * (limit - int(zero)) for limit in (steps.min, steps.max))
    assert lowest <= min(low, 0) + float(scale) and highest >= max(high, 0) - float(scale)
    assert steps.min <= int(zero) <= steps.max


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), max_size=20))
def test_union_find_is_an_equivalence(pairs: list[tuple[int, int]]) -> None:
    groups, expected = UnionFind(), {index: {index} for index in range(13)}
    for a, b in pairs:
        groups.join([str(a), str(b)])
        merged = expected[a] | expected[b]
        for member in merged:
            expected[member] = merged
    for a in range(13):
        for b in range(13):
            assert (groups.find(str(a)) == groups.find(str(b))) == (b in expected[a])


def test_layer_names_come_from_the_exporter(detector: onnx.ModelProto, tmp_path: Path) -> None:
    names = [node.name for node in detector.graph.node if node.op_type == "Conv"]
    assert names[0] == "model.model.0.conv"
    assert len(set(names)) == len(names)
