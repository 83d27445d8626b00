"""Tensors beyond FP16's range are found and named."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from edgekd.deploy.ranges import find_overflows, fp32_pins


def test_a_square_of_300_overflows_and_one_of_150_is_near() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], name="square"),
        helper.make_node("Mul", ["square", "small"], ["y"], name="scale"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.array(1e-3, np.float32), "small")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)

    def feeds(value: float) -> list[dict[str, np.ndarray]]:
        return [{"x": np.array([1.0, value], np.float32)}]

    (over,) = find_overflows(model, feeds(300))
    assert (over.tensor, over.op_type, over.largest) == ("square", "Mul", 90000.0)
    assert fp32_pins([over]) == ("square",)
    (near,) = find_overflows(model, feeds(150))
    assert not near.overflows and fp32_pins([near]) == ()
    assert find_overflows(model, feeds(3)) == []
    (infinite, also) = find_overflows(model, feeds(1e30))
    assert {infinite.tensor, also.tensor} == {"square", "y"} and infinite.overflows
