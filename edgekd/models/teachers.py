"""Frozen teachers: pictures in, one feature map per level out, and raw predictions where the teacher has a head.

A teacher is no `nn.Module`: a student that holds one neither registers its parameters nor saves, copies or trains them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import ModelError
from edgekd.models.dinov2 import load_vit, patch_features
from edgekd.models.levels import capture, find_levels
from edgekd.models.yolo11n import load_detector

MapsOf = Callable[[Tensor], list[Tensor]]
RawPredictions = dict[str, Tensor]


@dataclass
class Teacher:
    """A frozen network with the way to read it.

    Attributes:
        name: of the file or the class.
        network: frozen, in eval mode.
        maps_of: RGB pictures (N, 3, H, W) in 0..1 -> one map (N, C_l, h_l, w_l) a level.
        channels: C_l of each level.
        head: the detection head, None for a teacher without one; its input are the maps of P3, P4 and P5.
        class_names: of the head, empty without one.
        strides_px: of the head's levels, empty without one.
        amplifier: the head trained on high frequencies, if there is one.
    """

    name: str
    network: nn.Module
    maps_of: MapsOf
    channels: tuple[int, ...]
    head: nn.Module | None = None
    class_names: tuple[str, ...] = ()
    strides_px: tuple[float, ...] = ()
    amplifier: nn.Module | None = None

    def __post_init__(self) -> None:
        """Freeze whatever was handed in: no gradient, no dropout, no moving statistics."""
        for module in self._modules():
            module.eval().requires_grad_(False)

    def _modules(self) -> list[nn.Module]:
        return [module for module in (self.network, self.amplifier) if module is not None]

    def to(self, device: torch.device) -> Teacher:
        """Move the networks to a device, in place."""
        for module in self._modules():
            module.to(device)
        return self

    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps of RGB pictures (N, 3, H, W) in 0..1, without a graph."""
        with torch.no_grad():
            return self.maps_of(images)


def predict(head: nn.Module, maps: list[Tensor]) -> RawPredictions:
    """Raw outputs of an Ultralytics head on given maps.

    Returns:
        `boxes` (N, 4 R, A) distance logits, `scores` (N, n_classes, A) class logits, and `angle` (N, 1, A) in radians
        for an oriented head.
    """
    branch = head.one2one if head.end2end else head.one2many
    predictions = head.forward_head(maps, **branch)
    return {name: predictions[name] for name in ("boxes", "scores", "angle") if name in predictions}


def vit_teacher(path: str | Path, n_levels: int, block: int | None = None, side_px: int | None = None) -> Teacher:
    """A DINOv2 or DINOv3 ViT: the same patch features for every level, to be resampled to each level's grid.

    Args:
        path: see `edgekd.models.dinov2.load_vit`.
        n_levels: levels of the student that learn from it.
        block: whose features are used, 1-based; by default three quarters deep, where linear probes of patches peak.
        side_px: longer side of the pictures the ViT sees; by default that of the student's.
    """
    network, shape = load_vit(path)
    block = round(0.75 * shape.depth) if block is None else block
    if not 1 <= block <= shape.depth:
        raise ModelError(f"block {block} was asked for and {path} has blocks 1 to {shape.depth}; give one of these")

    def maps_of(images: Tensor) -> list[Tensor]:
        return [patch_features(network, shape, images, block, side_px)] * n_levels

    return Teacher(Path(path).name, network, maps_of, (shape.width,) * n_levels)


def detector_teacher(path: str | Path, levels: Sequence[str], amplifier: str | Path | None = None) -> Teacher:
    """An Ultralytics detector of any size, with its head.

    Args:
        path: a detection checkpoint (.pt).
        levels: names of the levels the student learns from; the head is offered if they are P3, P4 and P5.
        amplifier: a checkpoint of `edgekd distill train-amplifier`; its head is the high-frequency amplifier.
    """
    network = load_detector(path, oriented=True)
    found = find_levels(network, levels)
    layers = [level.layer for level in found]

    def maps_of(images: Tensor) -> list[Tensor]:
        with capture(network, layers) as maps:
            network(images)
        return [maps[layer] for layer in layers]

    head: Any = network.model[-1]
    has_head = layers == list(head.f)
    return Teacher(
        name=Path(path).name,
        network=network,
        maps_of=maps_of,
        channels=tuple(level.channels for level in found),
        head=head if has_head else None,
        class_names=tuple(network.names[index] for index in range(len(network.names))) if has_head else (),
        strides_px=tuple(float(stride) for stride in head.stride) if has_head else (),
        amplifier=None if amplifier is None else _amplifier_head(amplifier, head),
    )


def _amplifier_head(path: str | Path, teacher_head: Any) -> nn.Module:
    head: nn.Module = load_detector(path, oriented=True).model[-1]
    ours = {name: tuple(tensor.shape) for name, tensor in head.state_dict().items()}
    theirs = {name: tuple(tensor.shape) for name, tensor in teacher_head.state_dict().items()}
    if ours != theirs:
        raise ModelError(
            f"{path} has another head than the teacher; train it from this teacher with: edgekd distill train-amplifier"
        )
    return head


def module_teacher(network: nn.Module, channels: Sequence[int], name: str = "module") -> Teacher:
    """Any network that returns a list (or dict) of maps, one a level, for RGB pictures in 0..1."""

    def maps_of(images: Tensor) -> list[Tensor]:
        maps = network(images)
        return list(maps.values()) if isinstance(maps, dict) else list(maps)

    return Teacher(name, network, maps_of, tuple(channels))
