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
    makers = {output: node for node in model.graph.node for output in node.output if output}
    largest = dict.fromkeys(makers, 0.0)
    run = tensor_reader(model, largest)
    for picture in feeds:
        for name, value in run(picture).items():
            if name in largest and value.dtype == np.float32 and value.size:
                top = float(np.abs(value).max())
                largest[name] = max(largest[name], top if np.isfinite(top) else float("inf"))
    found = [Overflow(name, makers[name].name, makers[name].op_type, top) for name, top in largest.items()]
    return sorted((entry for entry in found if entry.largest > NEAR_SHARE * FLOAT16_MAX), key=lambda e: -e.largest)


def fp32_pins(overflows: Iterable[Overflow]) -> tuple[str, ...]:
    """Return the tensors that an FP16 build must keep in FP32."""
    return tuple(entry.tensor for entry in overflows if entry.overflows)
