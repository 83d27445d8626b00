"""What the ONNX parser of TensorRT 8.6 cannot read, written in older words; the numbers stay the same.

A graph of opset 18 goes in, one of opset 17 comes out: `axes` of reductions as attributes, because that parser drops an
input and reduces over everything; INT8 weights as floats before a QuantizeLinear, because it refuses INT8 initializers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekd.errors import BuildError

OPSET = 17
# Reductions whose axes became an input in opset 18; ReduceSum's did in 13, which 8.6 reads.
_REDUCTIONS = {
    f"Reduce{kind}" for kind in ("Max", "Mean", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
}

# Attributes of opset 18 that say what opset 17 does: value, or None for any. Split divides evenly there.
_DEFAULTS: dict[str, dict[str, object]] = {
    "Split": {"num_outputs": None},
    "Resize": {"antialias": 0, "keep_aspect_ratio_policy": b"stretch"},
}

Constants = dict[str, NDArray[np.generic]]


def for_tensorrt8(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph as TensorRT 8.6 reads it; `model` is left unchanged.

    Raises:
        BuildError: a reduction's axes are computed, or an operator cannot be said in opset 17.
    """
    older = onnx.ModelProto()
    older.CopyFrom(model)
    constants = _constants(older.graph)
    nodes: list[onnx.NodeProto] = []
    for node in older.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) > 1:
            _axes_as_attribute(node, constants)
        for name in _DEFAULTS.get(node.op_type, {}):
            _drop_attribute(node, name, _DEFAULTS[node.op_type][name])
        if node.op_type == "DequantizeLinear" and _is_int8(constants.get(node.input[0])):
            nodes.append(_quantize_from_float(older.graph, node, constants))
        nodes.append(node)
    del older.graph.node[:]
    older.graph.node.extend(nodes)
    for entry in older.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = min(entry.version, OPSET)
    _drop_unread(older.graph)
    try:
        onnx.checker.check_model(older, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BuildError(
            f"the graph cannot be written for the parser of TensorRT 8.6 ({reason}); build it with TensorRT 10 or newer"
        ) from error
    return older


def _constants(graph: onnx.GraphProto) -> Constants:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], numpy_helper.to_array(a.t)) for a in node.attribute if a.name == "value")
    return found


def _axes_as_attribute(node: onnx.NodeProto, constants: Constants) -> None:
    axes = node.input[1]
    if axes and axes not in constants:
        raise BuildError(
            f"{node.op_type} {node.name} computes its axes, which TensorRT 8.6 cannot read; "
            "build it with TensorRT 10 or newer"
        )
    del node.input[1:]
    if axes and constants[axes].size:
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in constants[axes].ravel()]))
    _drop_attribute(node, "noop_with_empty_axes")


def _drop_attribute(node: onnx.NodeProto, name: str, value: object = None) -> None:
    """Remove an attribute, where a value is given only if it is that one."""
    kept = [a for a in node.attribute if a.name != name or value not in (None, helper.get_attribute_value(a))]
    del node.attribute[:]
    node.attribute.extend(kept)


def _is_int8(values: NDArray[np.generic] | None) -> bool:
    return values is not None and values.dtype == np.int8 and values.ndim > 0


def _quantize_from_float(graph: onnx.GraphProto, node: onnx.NodeProto, constants: Constants) -> onnx.NodeProto:
    """Put the weights' float values into the graph and return the node that rounds them to the same INT8 steps."""
    weights, scale = constants[node.input[0]], constants[node.input[1]].astype(np.float32)
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    shape = [-1 if index == axis % weights.ndim else 1 for index in range(weights.ndim)]
    values = weights.astype(np.float32) * (scale.reshape(shape) if scale.ndim else scale)
    name, steps = f"{node.input[0]}_float", f"{node.input[0]}_steps"
    graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    parameters = list(node.input[1:])
    node.input[0] = steps
    return helper.make_node("QuantizeLinear", [name, *parameters], [steps], name=f"{steps}_quantize", axis=int(axis))


def _drop_unread(graph: onnx.GraphProto) -> None:
    read: Iterable[str] = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
