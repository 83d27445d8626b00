"""Plans of a few operations: y = 2 x + bias and rows = row index, for x of (n, 4)."""

from __future__ import annotations

import fake_plan
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def doubling() -> onnx.ModelProto:
    """The graph: inputs x (n, 4) float32 and bias (1,) float16, outputs y (n, 4) float32 and rows (n,) int32."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["bias"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x", "two"], ["doubled"]),
        helper.make_node("Add", ["doubled", "wide"], ["y"]),
        helper.make_node("Shape", ["x"], ["count"], start=0, end=1),
        helper.make_node("Squeeze", ["count"], ["n"]),
        helper.make_node("Range", ["zero", "n", "one"], ["indices"]),
        helper.make_node("Cast", ["indices"], ["rows"], to=TensorProto.INT32),
    ]
    constants = [numpy_helper.from_array(np.array(2, np.float32), "two")]
    constants += [numpy_helper.from_array(np.array(n, np.int64), name) for n, name in ((0, "zero"), (1, "one"))]
    inputs = [value("x", TensorProto.FLOAT, ("n", 4)), value("bias", TensorProto.FLOAT16, (1,))]
    outputs = [value("y", TensorProto.FLOAT, ("n", 4)), value("rows", TensorProto.INT32, ("n",))]
    graph = helper.make_graph(nodes, "doubling", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def doubling_plan(most_rows: int = 16, **settings) -> bytes:
    """The plan for 1 to `most_rows` rows; settings as for `fake_plan.write_plan`."""
    return fake_plan.write_plan(doubling(), {"x": ((1, 4), (4, 4), (most_rows, 4))}, **settings)


def float_plan(**settings) -> bytes:
    """The plan of y = 2 x for x of (1 to 16, 4), all in float32, as the C library wants it."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [value("x", TensorProto.FLOAT, ("n", 4))],
        [value("y", TensorProto.FLOAT, ("n", 4))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return fake_plan.write_plan(model, {"x": ((1, 4), (4, 4), (16, 4))}, **settings)
