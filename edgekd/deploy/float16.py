"""An ONNX graph in float32 to the same graph in float16, with float32 islands where float16 overflows or loses sums.

The conversion itself is ONNX Runtime's. Ours are the rules: which nodes stay in float32, that an island of several
nodes is not cut by casts, that Q/DQ scales keep their precision, and that inputs and outputs stay float32.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter

from edgekd.errors import ModelError

# Sums of many terms and powers leave float16's range (65504) before their inputs do; softmax and norms divide by them.
FP32_OPS = (
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "Softmax",
    "LogSoftmax",
    "ReduceMean",
    "ReduceSum",
    "ReduceL2",
    "ReduceSumSquare",
    "Pow",
    "Sqrt",
    "Exp",
)
# What computes their argument, an angle, needs absolute precision: a coordinate of 1000 px has a float16 step of 0.5.
ANGLE_OPS = ("Sin", "Cos")
# Whose inputs ONNX, or every TensorRT, wants in float32.
FLOAT_ONLY_OPS = ("Range", "CumSum", "TopK", "NonMaxSuppression", "RoiAlign")
QUANTIZE_OPS = ("QuantizeLinear", "DequantizeLinear")
FLOAT16_MAX = float(np.finfo(np.float16).max)
# Below the smallest normal float16, 2^-14, a scale loses more than the 2^-11 that float16 promises.
FLOAT16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)
# First opset in which a Q/DQ pair may have float16 scales.
FLOAT16_SCALES_OPSET = 19


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read and check an ONNX graph.

    Raises:
        ModelError: the file is missing, damaged or not ONNX.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist, expected an ONNX graph; write it with: edgekd export")
    try:
        model = onnx.load(str(path))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{path} is not a whole ONNX graph ({reason}); write it again with: edgekd export") from error
    return model


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether the graph has Q/DQ pairs."""
    return any(node.op_type in QUANTIZE_OPS for node in model.graph.node)


def fp32_node_names(model: onnx.ModelProto, pinned: Collection[str] = ()) -> set[str]:
    """Return the names of the nodes that stay in float32.

    These are `FP32_OPS`, `ANGLE_OPS` with everything they are computed from, constants beyond float16's range, Q/DQ
    pairs with scales below its precision, and what the caller pins.

    Args:
        model: the graph; nodes without a name are given one.
        pinned: names of nodes or of their outputs.

    Raises:
        ModelError: a pinned name is not in the graph.
    """
    _name_nodes(model)
    constants = _float_constants(model)
    wide = {name for name, values in constants.items() if _largest(values) > FLOAT16_MAX}
    tiny = {name for name, values in constants.items() if _smallest(values) < FLOAT16_SMALLEST_NORMAL}
    kept = _angle_nodes(model)
    found: set[str] = set()
    for node in model.graph.node:
        names = {node.name, *node.output}
        found |= names
        loses = wide & {*node.input, *node.output} or (node.op_type in QUANTIZE_OPS and tiny & set(node.input))
        if node.op_type in FP32_OPS or loses or names & set(pinned):
            kept.add(node.name)
    unknown = sorted(set(pinned) - found)
    if unknown:
        raise ModelError(f"the graph has no node and no tensor {unknown[0]}; correct the list of what stays in float32")
    return kept


def to_float16(model: onnx.ModelProto, pinned: Collection[str] = ()) -> onnx.ModelProto:
    """Convert a float32 graph, quantized or not, for a strongly typed build.

    Args:
        model: the graph; it is not changed.
        pinned: names of nodes or of their outputs that stay in float32 beside the islands of `fp32_node_names`.

    Returns:
        The graph with float16 weights and activations and float32 inputs and outputs; a quantized graph is raised to
        opset 19, the first with float16 scales.

    Raises:
        ModelError: a pinned name is unknown, or the graph cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if is_quantized(copy):
        copy = _raise_opset(copy)
    kept = fp32_node_names(copy, pinned)
    converted = convert_float_to_float16(
        copy, keep_io_types=True, op_block_list=list(FLOAT_ONLY_OPS), node_block_list=sorted(kept)
    )
    wrapped = OnnxModel(converted)
    wrapped.remove_cascaded_cast_nodes()
    wrapped.topological_sort()
    # The types noted in the graph are those of float32 times: forget them and infer them again.
    del wrapped.model.graph.value_info[:]
    wrapped = OnnxModel(onnx.shape_inference.infer_shapes(wrapped.model))
    wrapped.disable_shape_inference()
    wrapped.remove_useless_cast_nodes()
    try:
        onnx.checker.check_model(wrapped.model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"the graph cannot be converted to float16 ({reason}); build it with `precision` fp32"
        ) from error
    return wrapped.model


def _raise_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= FLOAT16_SCALES_OPSET:
        return model
    try:
        return version_converter.convert_version(model, FLOAT16_SCALES_OPSET)
    except RuntimeError as error:
        raise ModelError(
            f"the Q/DQ graph has opset {opset} and cannot be raised to {FLOAT16_SCALES_OPSET} ({error}); "
            "export it with that opset"
        ) from error


def _name_nodes(model: onnx.ModelProto) -> None:
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = f"{node.op_type}_{index}"


def _angle_nodes(model: onnx.ModelProto) -> set[str]:
    """Return the names of `ANGLE_OPS` and of all nodes before them; the nodes of a graph are in order of execution."""
    needed: set[str] = set()
    names = set()
    for node in reversed(model.graph.node):
        if node.op_type in ANGLE_OPS or needed & set(node.output):
            needed |= set(node.input)
            names.add(node.name)
    return names


def _float_constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    """Return the float32 values of initializers and `Constant` nodes by tensor name."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            tensors.update((node.output[0], entry.t) for entry in node.attribute if entry.name == "value")
    is_float = onnx.TensorProto.FLOAT
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items() if tensor.data_type == is_float}


def _largest(values: NDArray[np.float32]) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _smallest(values: NDArray[np.float32]) -> float:
    return float(np.abs(values).min(initial=np.inf))
