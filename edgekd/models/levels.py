"""Feature levels of a YOLO detector by name: C2 to C5 of the backbone, P3 to P5 before the head.

A model goes in, layer indices with channels and strides come out, read from the model itself, so that any width and any
version of the family is served. `capture` hands out the maps of a forward pass and leaves no hook behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import InputError

BACKBONE_STRIDES_PX = {4: "C2", 8: "C3", 16: "C4", 32: "C5"}
PYRAMID_STRIDES_PX = {8: "P3", 16: "P4", 32: "P5"}


@dataclass(frozen=True)
class Level:
    """One feature level: its layer in the model, its channels, and the pixels that one cell covers."""

    name: str
    layer: int
    channels: int
    stride_px: int


def find_levels(model: nn.Module, names: Sequence[str]) -> list[Level]:
    """Locate levels by name.

    Args:
        model: an Ultralytics `DetectionModel`; its mode and statistics are left as they were.
        names: of C2, C3, C4, C5 (the last backbone layer of that stride) and P3, P4, P5 (what enters the head).

    Raises:
        InputError: a level that this model does not have.
    """
    shapes = _layer_shapes(model)
    n_backbone = len(model.yaml["backbone"])
    found = {}
    for layer, (channels, stride_px) in shapes.items():
        if layer < n_backbone and stride_px in BACKBONE_STRIDES_PX:
            name = BACKBONE_STRIDES_PX[stride_px]
            found[name] = Level(name, layer, channels, stride_px)
    for layer in model.model[-1].f:
        channels, stride_px = shapes[layer]
        if stride_px in PYRAMID_STRIDES_PX:
            name = PYRAMID_STRIDES_PX[stride_px]
            found[name] = Level(name, layer, channels, stride_px)
    unknown = [name for name in names if name not in found]
    if unknown or not names:
        wanted = ", ".join(unknown) or "no level"
        raise InputError(f"{wanted} was asked for and this model has {', '.join(sorted(found))}; give some of these")
    return [found[name] for name in names]


def _layer_shapes(model: nn.Module, side_px: int = 64) -> dict[int, tuple[int, int]]:
    """Channels and stride of every layer with a 4-D output, by one pass over an empty picture."""
    was_training = model.training
    parameter = next(model.parameters())
    picture = torch.zeros(1, model.yaml.get("channels", 3), side_px, side_px, device=parameter.device)
    indices = range(len(model.model) - 1)
    with torch.no_grad(), capture(model, indices) as maps:
        model.eval()(picture.to(parameter.dtype))
    model.train(was_training)
    return {layer: (int(m.shape[1]), side_px // int(m.shape[2])) for layer, m in maps.items()}


@contextmanager
def capture(model: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Collect the outputs of `model.model[layer]` while the block runs; the hooks are gone afterwards."""
    maps: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and output.dim() == 4:
                maps[layer] = output

        return hook

    handles = [model.model[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield maps
    finally:
        for handle in handles:
            handle.remove()
