"""Which blocks suffer most from INT8: a Q/DQ graph and pictures in, blocks in the order of the harm they do out.

One block at a time is quantized while all others are float; the harm is the noise that this adds to the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from edgekd.deploy.qdq import keep_quantized, quantized_layers
from edgekd.deploy.ranges import Feeds, tensor_reader

BLOCK_DEPTH = 4
"""Parts of a layer's dotted name that make its block: `backbone.stages_1.blocks.0`, `model.model.6.m`."""


@dataclass(frozen=True)
class Block:
    """Some layers of one module, and what quantizing them alone does to the outputs.

    Attributes:
        name: the common part of the layers' names.
        layers: names of the weighted nodes.
        noise: power of the difference to the float outputs over the power of those, the largest of all outputs.
    """

    name: str
    layers: tuple[str, ...]
    noise: float


def blocks_of(layers: Iterable[str]) -> dict[str, list[str]]:
    """Group layers by the first `BLOCK_DEPTH` parts of their names, in order."""
    blocks: dict[str, list[str]] = {}
    for layer in layers:
        blocks.setdefault(".".join(layer.split(".")[:BLOCK_DEPTH]), []).append(layer)
    return blocks


def rank_blocks(
    quantized: onnx.ModelProto, feeds: Sequence[Feeds], report: Callable[[str], None] = lambda line: None
) -> list[Block]:
    """Measure every block alone.

    Args:
        quantized: Q/DQ graph with fixed sizes.
        feeds: one dictionary of inputs a picture; a handful is enough for an order.
        report: called with one line a block.

    Returns:
        The blocks, most harmful first.
    """
    expected = _outputs(keep_quantized(quantized, []), feeds)
    ranked = []
    for name, layers in blocks_of(quantized_layers(quantized)).items():
        found = _outputs(keep_quantized(quantized, layers), feeds)
        noise = max(_noise(found[key], expected[key]) for key in expected)
        report(f"{name}: noise {noise:.2e} from {len(layers)} layers")
        ranked.append(Block(name, tuple(layers), noise))
    return sorted(ranked, key=lambda block: -block.noise)


def _outputs(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> dict[str, list[Any]]:
    names = [value.name for value in model.graph.output]
    run = tensor_reader(model, names)
    rows = [run(picture) for picture in feeds]
    return {name: [row[name] for row in rows] for name in names}


def _noise(found: Sequence[Any], expected: Sequence[Any]) -> float:
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    power = sum(float(np.square(b).sum()) for _, b in pairs)
    return sum(float(np.square(a - b).sum()) for a, b in pairs) / max(power, 1e-30)
