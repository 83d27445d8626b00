"""Graphs as TensorRT 8.6 reads them compute the same numbers; ONNX Runtime is the judge."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphs
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgekd.deploy.qdq import fold_weights
from edgekd.deploy.tensorrt_legacy import for_tensorrt8
from edgekd.errors import BuildError

SHAPES = {"x": (2, 3, 16, 16)}


def outputs(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def reductions(axes_of_mean: str = "axes") -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Split", ["x"], ["a", "b"], axis=2, num_outputs=2),
        helper.make_node("ReduceMax", ["a", "axes"], ["largest"], keepdims=1),
        helper.make_node("Shape", ["b"], ["shape"], start=1, end=2),
        helper.make_node("Sub", ["shape", "two"], ["computed"]),
        helper.make_node("ReduceMean", ["b", axes_of_mean], ["mean"], keepdims=1, name="mean_of_channels"),
        helper.make_node("ReduceMin", ["x"], ["smallest"], keepdims=1),
        helper.make_node("Add", ["largest", "mean"], ["sum"]),
        helper.make_node("Add", ["sum", "smallest"], ["y"]),
    ]
    constants = [axes, numpy_helper.from_array(np.array([2], np.int64), "two")]
    graph = helper.make_graph(
        nodes, "reductions", [value("x", 1, SHAPES["x"])], [value("y", 1, (2, 1, 8, 16))], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_reductions_keep_their_axes_and_their_numbers() -> None:
    model = reductions()
    older = for_tensorrt8(model)
    assert older.opset_import[0].version == 17 and model.opset_import[0].version == 18
    assert all(len(node.input) == 1 for node in older.graph.node if node.op_type.startswith("Reduce"))
    feeds = {"x": np.random.default_rng(0).standard_normal(SHAPES["x"]).astype(np.float32)}
    np.testing.assert_array_equal(outputs(older, feeds)[0], outputs(model, feeds)[0])


def test_computed_axes_are_refused() -> None:
    with pytest.raises(BuildError, match="ReduceMean mean_of_channels computes its axes, .* TensorRT 10 or newer"):
        for_tensorrt8(reductions("computed"))


def test_int8_weights_become_floats_that_round_to_the_same_steps() -> None:
    model = fold_weights(onnx_graphs.quantized_convolution())
    assert any(tensor.data_type == onnx.TensorProto.INT8 and tensor.dims for tensor in model.graph.initializer)
    older = for_tensorrt8(model)
    assert not any(
        tensor.data_type == onnx.TensorProto.INT8 and np.prod(tensor.dims) > 256 for tensor in older.graph.initializer
    )
    weights = [node for node in older.graph.node if node.name.endswith("_steps_quantize")]
    assert weights and all(node.input[0].endswith("_float") for node in weights)
    value = model.graph.input[0]
    shape = [axis.dim_value or 2 for axis in value.type.tensor_type.shape.dim]
    feeds = {value.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    np.testing.assert_allclose(outputs(older, feeds)[0], outputs(model, feeds)[0], atol=1e-5)
