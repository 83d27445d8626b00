"""The detector: any Ultralytics detection, OBB or segment checkpoint, read safely, its head cut before the decoding.

A checkpoint goes in; an `nn.Module` whose outputs are the raw head maps comes out. Boxes are decoded by the runtime in
float32, and only for the anchors above the confidence threshold: a box coordinate of 0 to 640 px has a step of 4 px in
bf16 and ruins an INT8 scale that it shares with a score, so neither may be part of a graph of low precision.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from edgekd.errors import ModelError, first_line
from edgekd.files import bytes_of, write_bytes

# What torch's restricted unpickler raises on damaged or hostile bytes, beside its own error.
_UNREADABLE = (
    pickle.UnpicklingError, TypeError, RuntimeError, ModuleNotFoundError, AttributeError, LookupError, ValueError,
    EOFError, AssertionError,
)  # fmt: skip


MAX_SCALE = 64.0
"""A recorded scale beyond this is not believed."""


@dataclass(frozen=True)
class DetectorFacts:
    """What the runtime has to know of a detector to decode its outputs.

    Attributes:
        class_names: one name per class, in the order of the class logits.
        strides_px: input pixels per cell of each level, P3 first.
        reg_max: bins of the distance distribution (DFL) per box side; 1 means plain distances in cells.
        end2end: the head is trained one-to-one and needs no non-maximum suppression.
        n_coefficients: mask coefficients per anchor of a segment network; 0 for one that gives boxes alone.
        angle: of an oriented (OBB) network, what its angle maps hold: logits of a `sigmoid`, or `radians`; None for
            upright boxes.
        trained_scale: pixels of the training input per pixel of a training picture; None where nobody recorded it.
    """

    class_names: tuple[str, ...]
    strides_px: tuple[int, ...]
    reg_max: int
    end2end: bool
    n_coefficients: int = 0
    angle: Literal["sigmoid", "radians"] | None = None
    trained_scale: float | None = None


def load_detector(path: str | Path, with_masks: bool = False, oriented: bool = False) -> nn.Module:
    """Load an Ultralytics detection checkpoint without running code from it.

    Args:
        path: a `.pt` file of YOLO v8, 11 or 26 (any width), as Ultralytics saves it.
        with_masks: a segment network, such as yolo11n-seg.pt, is welcome too.
        oriented: a network of turned boxes, such as yolo11n-obb.pt, is welcome too.

    Returns:
        The float32 `DetectionModel`, `SegmentationModel` or `OBBModel` in eval mode, with the exponential moving
        average of the weights where there is one.

    Raises:
        ModelError: the file is missing, truncated, of another kind, or holds classes other than torch's and
            Ultralytics' own.
    """
    from ultralytics.nn.tasks import DetectionModel, OBBModel, SegmentationModel, torch_safe_load

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give the path of an Ultralytics detection checkpoint (.pt)")
    if path.suffix != ".pt":
        raise ModelError(f"{path} is not a .pt file; give an Ultralytics detection checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns of pickle protocols before it refuses what they hold
            checkpoint, _ = torch_safe_load(str(path), safe_only=True)
    except _UNREADABLE as error:
        reason = first_line(error)
        raise ModelError(f"{path} cannot be read as an Ultralytics detection checkpoint: {reason}") from error
    model: Any = checkpoint.get("ema") or checkpoint.get("model") if isinstance(checkpoint, dict) else None
    welcome = [DetectionModel, *[SegmentationModel] * with_masks, *[OBBModel] * oriented]
    if type(model) not in welcome:
        found = "a state dict" if isinstance(checkpoint, dict) and model is None else type(model).__name__
        raise ModelError(
            f"{path} holds {found}, not an Ultralytics {' or '.join(kind.__name__ for kind in welcome)}; "
            "give a checkpoint such as yolo11n.pt"
        )
    detector: nn.Module = model.float().eval()
    for module in detector.modules():
        if isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None  # absent in checkpoints older than torch 1.11
    return detector


def save_detector(model: nn.Module, path: Path, licence: str) -> None:
    """Write a bare detector as an Ultralytics checkpoint, float32, in one step; errors as for `files.write_bytes`."""
    from datetime import datetime

    from ultralytics import __version__ as ultralytics_version

    content = {
        "epoch": -1,
        "model": copy.deepcopy(model).float().eval().requires_grad_(False),
        "ema": None,
        "optimizer": None,
        "train_args": {},
        "date": datetime.now().astimezone().isoformat(),
        "version": ultralytics_version,
        "license": licence,
    }
    write_bytes(path, bytes_of(lambda buffer: torch.save(content, buffer)))


def facts_of(model: nn.Module) -> DetectorFacts:
    """Read class names, strides and the head's form from a loaded detector."""
    head = model.model[-1]
    names = model.names
    ordered = tuple(str(names[index]) for index in range(len(names)))
    strides = tuple(int(stride) for stride in head.stride)
    n_coefficients = int(head.nm) if hasattr(head, "proto") else 0
    scale = getattr(model, "trained_scale", None)
    known = float(scale) if isinstance(scale, float) and 0 < scale <= MAX_SCALE else None
    end2end, angle = bool(head.end2end), _angle_of(head)
    return DetectorFacts(ordered, strides, int(head.reg_max), end2end, n_coefficients, angle, known)


def _angle_of(head: Any) -> Literal["sigmoid", "radians"] | None:
    from ultralytics.nn.modules.head import OBB, OBB26

    if not isinstance(head, OBB):
        return None
    return "radians" if isinstance(head, OBB26) else "sigmoid"


class _RawHead(nn.Module):
    """Ultralytics' detection head up to its last convolutions; `f` and `i` are what its layer loop reads."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head
        self.angle = self._taken_angle_branch()
        self.f, self.i, self.type = head.f, head.i, head.type

    def _taken_angle_branch(self) -> nn.Module | None:
        """Move the branch of angles here, so that its layers have a name of their own in recipes."""
        from ultralytics.nn.modules.head import OBB

        if not isinstance(self.head, OBB):
            return None
        name = "one2one_cv4" if self.head.end2end else "cv4"
        branch: nn.Module = getattr(self.head, name)
        setattr(self.head, name, None)
        return branch

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        from ultralytics.nn.modules.head import Detect, Segment26

        branch = self.head.one2one if self.head.end2end else self.head.one2many
        if isinstance(self.angle, nn.ModuleList):
            # The angle as its last convolution gives it: pi times a sigmoid would have coarse steps in bf16.
            maps = Detect.forward_head(self.head, features, branch["box_head"], branch["cls_head"])
            angles = [layers(feature).flatten(2) for layers, feature in zip(self.angle, features, strict=True)]
            return maps["boxes"], maps["scores"], torch.cat(angles, 2)
        maps = self.head.forward_head(features, **branch)
        if "mask_coefficient" not in maps:
            return maps["boxes"], maps["scores"]
        prototypes = self.head.proto(features if isinstance(self.head, Segment26) else features[0])
        return maps["boxes"], maps["scores"], maps["mask_coefficient"], prototypes


class DetectorGraph(nn.Module):
    """The detector as it is exported: pictures in, raw head maps out.

    Input `images` (n, 3, H, W) float32, RGB in 0..1, H and W multiples of the largest stride.
    Outputs `box_logits` (n, 4 * reg_max, A) and `class_logits` (n, n_classes, A) float32, with the A anchors of P3, P4
    and P5 one after another, row by row. An oriented network adds `angle_logits` (n, 1, A) float32. A segment network
    adds `mask_coefficients` (n, k, A) and `mask_prototypes`
    (n, k, H / 4, W / 4) float32.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        fused = copy.deepcopy(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fused = fused.fuse(verbose=False)
        fused.model[-1] = _RawHead(fused.model[-1])
        self.model = fused.eval()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run backbone, neck and head convolutions; see the class for shapes."""
        return tuple(self.model._predict_once(images))
