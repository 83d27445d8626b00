"""Q/DQ pairs: where they go, how they are put into a graph, and how layers are returned to float.

A float graph, a recipe and ranges go in; the same graph with QuantizeLinear/DequantizeLinear pairs comes out. Weights
stay in the file as float32 in front of their pair, so that the float graph can be had back exactly: every fallback, and
the reference of every gate, is the same file with pairs taken out.

Pairs go on the inputs of convolutions and products only: what a convolution puts out stays in high precision until the
activation function has run, which is where TensorRT and OpenVINO fuse. Tensors that pass-through nodes connect share
one scale; which those are is found by joining groups.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekd.choices import WeightBits
from edgekd.deploy.calibration_recipes import CalibrationRecipe

PAIR_OPS = ("QuantizeLinear", "DequantizeLinear")
_DQ = "_dequantized"
_PREFIX = "edgekd."


@dataclass(frozen=True)
class Placement:
    """Which nodes compute in INT8, and what that quantizes.

    Attributes:
        layers: names of the weighted nodes.
        carriers: names of the pass-through nodes between them.
        activations: tensors that get a pair.
        groups: which of them share a scale.
    """

    layers: tuple[str, ...]
    carriers: tuple[str, ...]
    activations: tuple[str, ...]
    groups: UnionFind


def place_pairs(model: onnx.ModelProto, recipe: CalibrationRecipe) -> Placement:
    """Decide what becomes INT8: the recipe's weighted layers, and the pass-through nodes that lead to them."""
    weights = _float_constants(model)
    layers = [node for node in model.graph.node if _computes_in_int8(node, weights, recipe)]
    wanted = {node.input[0] for node in layers}
    carriers = []
    for node in reversed(model.graph.node):  # consumers come first, so one pass finds whole chains
        if node.op_type in recipe.tied_ops and wanted & set(node.output) and not _has_constant(node, weights):
            carriers.append(node)
            wanted |= set(passed_through(node))
    return Placement(
        layers=tuple(node.name for node in layers),
        carriers=tuple(node.name for node in carriers),
        activations=tuple(sorted(wanted)),
        groups=tied_groups(carriers, recipe.tied_ops),
    )


def insert_pairs(
    model: onnx.ModelProto, placement: Placement, ranges: Mapping[str, Range], recipe: CalibrationRecipe
) -> onnx.ModelProto:
    """Return the graph with a pair on every placed activation and on every weight of a placed layer.

    Args:
        model: float graph; not changed.
        placement: from `place_pairs` for this graph.
        ranges: lowest and highest value of every placed activation, already tied.
        recipe: activations as symmetric S8 or as U8 with a zero-point, and how many bits weights have.
    """
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    graph = quantized.graph
    constants = _float_constants(quantized)
    inside = {*placement.layers, *placement.carriers}
    pairs: dict[str, list[onnx.NodeProto]] = {}
    for name in placement.activations:
        scale, zero = activation_scale(ranges[name], recipe.activations == "signed")
        pairs[name] = _pair(graph, name, scale, zero, axis=None)
    weight_pairs: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name not in inside:
            continue
        if node.name in placement.layers and node.input[1] + _DQ not in {pair.output[0] for pair in weight_pairs}:
            axis = 0 if _is_rows(node) else constants[node.input[1]].ndim - 1
            scale, zero = weight_scale(constants[node.input[1]], axis, recipe.weight_bits)
            weight_pairs += _pair(graph, node.input[1], scale, zero, axis)
        quantizable = {*pairs, node.input[1]} if node.name in placement.layers else set(pairs)
        for index, name in enumerate(node.input):
            if name in quantizable:
                node.input[index] = name + _DQ
    _reorder(graph, pairs, weight_pairs)
    return quantized


def activation_scale(span: Range, signed: bool) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Return scale and zero-point, both scalars; the range is widened to hold zero, which must be exact."""
    low, high = min(span[0], 0.0), max(span[1], 0.0)
    if signed:
        return np.array(max(-low, high, 1e-8) / 127, np.float32), np.array(0, np.int8)
    scale = max(high - low, 1e-8) / 255
    return np.array(scale, np.float32), np.array(np.clip(round(-low / scale), 0, 255), np.uint8)


def weight_scale(
    weight: NDArray[np.float32], axis: int, n_bits: WeightBits = 8
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return symmetric scales, one for each output channel along `axis`, and zero-points (zeros).

    Steps reach from -127 to 127, with 7 bits from -63 to 63.
    """
    others = tuple(index for index in range(weight.ndim) if index != axis)
    scale = np.maximum(np.abs(weight).max(others), 1e-8) / (2 ** (n_bits - 1) - 1)
    return scale.astype(np.float32), np.zeros(len(scale), np.int8)


def calibration_facts(model: onnx.ModelProto) -> dict[str, str]:
    """Return what the graph's metadata says about its calibration: target, method and hashes."""
    entries = {entry.key: entry.value for entry in model.metadata_props}
    return {key.removeprefix(_PREFIX): value for key, value in entries.items() if key.startswith(_PREFIX)}


def write_facts(model: onnx.ModelProto, facts: Mapping[str, str]) -> None:
    """Put such facts into the graph's metadata, in place."""
    helper.set_model_props(model, {f"{_PREFIX}{key}": value for key, value in facts.items()})


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the weighted nodes that compute in INT8, in the order of the graph."""
    source, weights = _sources(model), _float_constants(model)
    weighted = [node for node in model.graph.node if len(node.input) > 1 and node.op_type not in PAIR_OPS]
    return [node.name for node in weighted if source.get(node.input[1]) in weights]


def keep_quantized(model: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """Return the graph in which only these weighted layers, and what leads to them, are INT8; none gives the float one.

    A pass-through node keeps its pairs while its output still feeds an INT8 layer.
    """
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    graph = kept.graph
    source = _sources(kept)
    was_int8 = set(quantized_layers(kept))
    wanted: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in PAIR_OPS or not any(name in source for name in node.input):
            continue
        stays = node.name in layers if node.name in was_int8 else bool(wanted & set(node.output))
        for index, name in enumerate(node.input):
            if name in source and stays:
                wanted.add(source[name])
            elif name in source:
                node.input[index] = source[name]
    _drop_unused(graph)
    return kept


def return_to_float(model: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """Return the graph with these layers, and the pass-through nodes that only they need, back in float."""
    return keep_quantized(model, [name for name in quantized_layers(model) if name not in set(layers)])


def fold_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with INT8 weights in the file, as an engine wants it: a quarter of the size, no way back.

    Only the weight's QuantizeLinear is computed; its DequantizeLinear stays, which makes the layer INT8.
    """
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    graph = folded.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in constants:
            nodes.append(node)
            continue
        weight, scale = constants[node.input[0]], constants[node.input[1]]
        axis = next(attribute.i for attribute in node.attribute if attribute.name == "axis")
        shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
        steps = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(steps, node.output[0]))
    del graph.node[:]
    graph.node.extend(nodes)
    _keep_read_initializers(graph, nodes)
    return folded


def _computes_in_int8(
    node: onnx.NodeProto, weights: Mapping[str, NDArray[np.float32]], recipe: CalibrationRecipe
) -> bool:
    if node.op_type not in recipe.weighted_ops or recipe.keeps_float(node.name):
        return False
    if node.input[0] in weights or node.input[1] not in weights:
        return False
    depthwise = node.op_type == "Conv" and weights[node.input[1]].shape[1] == 1 and _groups(node) > 1
    return recipe.depthwise or not depthwise


def _has_constant(node: onnx.NodeProto, weights: Mapping[str, NDArray[np.float32]]) -> bool:
    return bool(set(passed_through(node)) & set(weights))


def _groups(node: onnx.NodeProto) -> int:
    return int(next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1))


def _is_rows(node: onnx.NodeProto) -> bool:
    """Whether output channels are the first axis of the weight: always in Conv, in Gemm when it is transposed."""
    if node.op_type == "Gemm":
        return any(attribute.name == "transB" and attribute.i == 1 for attribute in node.attribute)
    return str(node.op_type) == "Conv"


def _float_constants(model: onnx.ModelProto) -> dict[str, NDArray[np.float32]]:
    return {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2
    }


def _sources(model: onnx.ModelProto) -> dict[str, str]:
    """Output of each pair -> the tensor that the pair stands on."""
    quantized = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    ends = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in quantized]
    return {node.output[0]: quantized[node.input[0]] for node in ends}


def _pair(
    graph: onnx.GraphProto, name: str, scale: NDArray[np.float32], zero: NDArray[np.generic], axis: int | None
) -> list[onnx.NodeProto]:
    """Make the two nodes of a pair and add its scale and zero-point to the graph."""
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}_scale"))
    graph.initializer.append(numpy_helper.from_array(zero, f"{name}_zero_point"))
    parameters = [f"{name}_scale", f"{name}_zero_point"]
    attributes = {} if axis is None else {"axis": axis}
    return [
        helper.make_node(
            "QuantizeLinear", [name, *parameters], [f"{name}_quantized"], name=f"{name}_QuantizeLinear", **attributes
        ),
        helper.make_node(
            "DequantizeLinear",
            [f"{name}_quantized", *parameters],
            [name + _DQ],
            name=f"{name}_DequantizeLinear",
            **attributes,
        ),
    ]


def _reorder(
    graph: onnx.GraphProto, pairs: Mapping[str, list[onnx.NodeProto]], weight_pairs: list[onnx.NodeProto]
) -> None:
    """Put each pair right behind the node that makes its tensor; weights and graph inputs come first."""
    nodes = list(graph.node)
    made = {output for node in nodes for output in node.output}
    ordered = list(weight_pairs)
    ordered += [node for name, pair in pairs.items() if name not in made for node in pair]
    for node in nodes:
        ordered.append(node)
        ordered += [part for output in node.output if output in pairs for part in pairs[output]]
    del graph.node[:]
    graph.node.extend(ordered)


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Remove pairs that nothing reads any more, and their scales."""
    used = {name for node in graph.node if node.op_type not in PAIR_OPS for name in node.input}
    used |= {value.name for value in graph.output}
    dead = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear" and node.output[0] not in used}
    kept = [
        node
        for node in graph.node
        if not (node.op_type == "QuantizeLinear" and node.output[0] in dead)
        and not (node.op_type == "DequantizeLinear" and node.input[0] in dead)
    ]
    del graph.node[:]
    graph.node.extend(kept)
    _keep_read_initializers(graph, kept)


def _keep_read_initializers(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    read = {name for node in nodes for name in node.input}
    tensors = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(tensors)


Range = tuple[float, float]


class UnionFind:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """Return the representative of the set that holds `name`, which may be new."""
        root = name
        while (above := self._parent.setdefault(root, root)) != root:
            root = above
        while name != root:
            self._parent[name], name = root, self._parent[name]
        return root

    def join(self, names: Iterable[str]) -> None:
        """Merge the sets of all these names."""
        first, *others = names
        for other in others:
            self._parent[self.find(other)] = self.find(first)


def passed_through(node: onnx.NodeProto) -> list[str]:
    """Return the tensors of a pass-through operator that carry the data: not its sizes and split lengths."""
    inputs = list(node.input) if node.op_type == "Concat" else [node.input[0]]
    return [*inputs, *node.output]


def tied_groups(nodes: Iterable[onnx.NodeProto], tied_ops: Collection[str]) -> UnionFind:
    """Return which tensors share a scale, through any chain of `tied_ops`."""
    groups = UnionFind()
    for node in nodes:
        if node.op_type in tied_ops:
            groups.join(passed_through(node))
    return groups


def tie_ranges(ranges: Mapping[str, Range], groups: UnionFind) -> dict[str, Range]:
    """Give every tensor the smallest range that covers its whole group."""
    widest: dict[str, Range] = {}
    for name, (low, high) in ranges.items():
        root = groups.find(name)
        other = widest.get(root, (low, high))
        widest[root] = (min(low, other[0]), max(high, other[1]))
    return {name: widest[groups.find(name)] for name in ranges}
