"""Which tensors leave FP16's range on real pictures: a float graph and its inputs in, a report and pins out.

An FP16 engine gives infinities there, or the same embedding for every picture. The tensors named here stay
in FP32 as `fp32_nodes` of a TensorRT build.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx

from edgekd.deploy.ranges import Feeds, tensor_reader

FLOAT16_MAX = 65504.0
_PEAK = "_peak"
NEAR_SHARE = 0.25
"""A tensor that reaches this share of the limit is reported too: another picture may go over."""


@dataclass(frozen=True)
class Overflow:
    """One tensor: its name, the node that makes it, and its largest magnitude over all pictures."""

    tensor: str
    node: str
    op_type: str
    largest: float

    @property
    def overflows(self) -> bool:
        """Whether FP16 cannot hold it."""
        return not self.largest <= FLOAT16_MAX


def find_overflows(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> list[Overflow]:
    """Measure every float tensor of a graph.

    Args:
        model: float graph with fixed sizes; its nodes have names.
        feeds: one dictionary of inputs a picture.

    Returns:
        The tensors that reach a quarter of 65504, largest first; those that are not finite count as infinite.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    names = [name for name in _float_tensors(model) if name in makers]
    run = tensor_reader(_with_peaks(model, names), [name + _PEAK for name in names])
    largest = dict.fromkeys(names, 0.0)
    for picture in feeds:
        peaks = run(picture)
        for name in names:
            peak = float(peaks[name + _PEAK])
            largest[name] = max(largest[name], peak if np.isfinite(peak) else float("inf"))
    found = [Overflow(name, makers[name].name, makers[name].op_type, peak) for name, peak in largest.items()]
    return sorted((entry for entry in found if entry.largest > NEAR_SHARE * FLOAT16_MAX), key=lambda e: -e.largest)


def fp32_pins(overflows: Iterable[Overflow]) -> tuple[str, ...]:
    """Return the tensors that an FP16 build must keep in FP32."""
    return tuple(entry.tensor for entry in overflows if entry.overflows)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    """The names of all float32 activations, by ONNX's own type inference."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.output]
    return [value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]


def _with_peaks(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Add a scalar output a tensor, its largest magnitude: the tensors themselves would fill gigabytes."""
    peaked = onnx.ModelProto()
    peaked.CopyFrom(model)
    for name in names:
        magnitude = onnx.helper.make_node("Abs", [name], [f"{name}_magnitude"])
        peaked.graph.node.extend(
            [magnitude, onnx.helper.make_node("ReduceMax", magnitude.output, [name + _PEAK], keepdims=0)]
        )
    return peaked
