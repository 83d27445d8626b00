"""Small ONNX graphs that hold what the real ones hold: convolution, attention's softmax, norms, angles, Q/DQ pairs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def model_of(nodes, inputs, outputs, constants, opset=18):
    """Return a checked model; inputs and outputs are name -> shape, constants are name -> array."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def convolution(seed=0):
    """(n, 3, 16, 16) -> (n, 8, 16, 16): convolution and ReLU with an open batch."""
    weight = np.random.default_rng(seed).standard_normal((8, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"], name="relu"),
    ]
    return model_of(nodes, {"x": ["n", 3, 16, 16]}, {"y": ["n", 8, 16, 16]}, {"weight": weight})


def attention(width=16):
    """(1, 8, 16) -> (1, 8, 16): layer normalisation, a product, softmax, another product."""
    weight = np.random.default_rng(1).standard_normal((width, width)).astype(np.float32)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gamma", "beta"], ["n"], name="norm", axis=-1),
        helper.make_node("MatMul", ["n", "weight"], ["q"], name="project"),
        helper.make_node("Transpose", ["q"], ["k"], name="transpose", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "k"], ["s"], name="scores"),
        helper.make_node("Softmax", ["s"], ["p"], name="softmax", axis=-1),
        helper.make_node("MatMul", ["p", "q"], ["y"], name="mix"),
    ]
    constants = {"gamma": np.ones(width, np.float32), "beta": np.zeros(width, np.float32), "weight": weight}
    return model_of(nodes, {"x": [1, 8, width]}, {"y": [1, 8, width]}, constants)


def variance():
    """(1, 64) -> (1, 64): a norm written out; its squares leave float16's range for inputs over 256."""
    nodes = [
        helper.make_node("Pow", ["x", "two"], ["square"], name="square"),
        helper.make_node("ReduceMean", ["square", "axes"], ["mean"], name="mean"),
        helper.make_node("Sqrt", ["mean"], ["root"], name="root"),
        helper.make_node("Div", ["x", "root"], ["y"], name="divide"),
    ]
    constants = {"two": np.float32(2), "axes": np.array([1], np.int64)}
    return model_of(nodes, {"x": [1, 64]}, {"y": [1, 64]}, constants)


def position_encoding():
    """(n, 2) pixel coordinates -> (n, 8): scaled, projected, sine, and a product after it."""
    rng = np.random.default_rng(2)
    constants = {
        "size": np.float32(1024),
        "frequencies": (rng.standard_normal((2, 8)) * 2 * np.pi).astype(np.float32),
        "weight": rng.standard_normal((8, 8)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Div", ["boxes", "size"], ["unit"], name="scale"),
        helper.make_node("MatMul", ["unit", "frequencies"], ["angle"], name="angle"),
        helper.make_node("Sin", ["angle"], ["wave"], name="sine"),
        helper.make_node("MatMul", ["wave", "weight"], ["y"], name="embed"),
    ]
    return model_of(nodes, {"boxes": ["n", 2]}, {"y": ["n", 8]}, constants)


def quantized_convolution(scale=0.02, opset=18):
    """(1, 3, 16, 16) -> (1, 8, 16, 16): a convolution with Q/DQ pairs, on the weight per channel."""
    rng = np.random.default_rng(3)
    constants = {
        "x_scale": np.float32(0.05),
        "x_zero": np.int8(0),
        "w_int8": rng.integers(-127, 128, (8, 3, 3, 3)).astype(np.int8),
        "w_scale": np.full(8, scale, np.float32),
        "w_zero": np.zeros(8, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"], name="x_quantize"),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_dq"], name="x_dequantize"),
        helper.make_node("DequantizeLinear", ["w_int8", "w_scale", "w_zero"], ["w"], name="w_dequantize", axis=0),
        helper.make_node("Conv", ["x_dq", "w"], ["y"], name="conv", pads=[1, 1, 1, 1]),
    ]
    return model_of(nodes, {"x": [1, 3, 16, 16]}, {"y": [1, 8, 16, 16]}, constants, opset)
