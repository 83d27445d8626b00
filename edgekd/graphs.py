"""The graph contract: what every network is called, what goes in and out of it, and which sizes it takes.

Export writes graphs of this form, build and calibrate look names up here, the runtime feeds and reads them by these
names. Everything is a constant; the C library has the same ones in `capi/src`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

Kind = Literal["sam", "crop", "yolo-seg"]
"""The ways to a mask: boxes prompt an embedding of the picture, a network on a crop per box, a detector with masks."""

StageName = Literal["detector", "encoder", "decoder", "segmenter"]

STAGES_OF_KIND: Mapping[Kind, tuple[StageName, ...]] = {
    "sam": ("detector", "encoder", "decoder"),
    "crop": ("detector", "segmenter"),
    "yolo-seg": ("detector",),
}

IMAGES = "images"
"""Detector: (n, 3, H, W) float32, RGB from 0 to 1."""
BOX_LOGITS = "box_logits"
"""Detector: (n, 4 * reg_max, anchors) float32."""
CLASS_LOGITS = "class_logits"
"""Detector: (n, classes, anchors) float32."""
ANGLE_LOGITS = "angle_logits"
"""Detector with the head `obb`: (n, 1, anchors) float32."""
MASK_COEFFICIENTS = "mask_coefficients"
"""Detector of kind `yolo-seg`: (n, prototypes, anchors) float32."""
MASK_PROTOTYPES = "mask_prototypes"
"""Detector of kind `yolo-seg`: (n, prototypes, H / 4, W / 4) float32."""
IMAGE = "image"
"""Encoder: (1, 3, H, W) float32, RGB, normalised."""
IMAGE_EMBEDDINGS = "image_embeddings"
"""Encoder and decoder: (1, 256, H / 16, W / 16) float32."""
BOXES = "boxes"
"""Decoder: (n, 4) float32, xyxy in input pixels."""
LOW_RES_MASKS = "low_res_masks"
"""Decoder: (n, H / 4, W / 4) float32 logits."""
CROPS = "crops"
"""Segmenter: (n, S, S, 3) uint8, RGB."""
MASK_LOGITS = "mask_logits"
"""Segmenter: (n, S, S) float32."""
PREDICTED_IOU = "predicted_iou"
"""Decoder and segmenter: (n,) float32."""

OLD_NAMES: Mapping[str, str] = {PREDICTED_IOU: "iou_predictions"}
"""What tensors were called in graphs that were exported before; they stay readable, see `tensor_of`."""

SIDE_MULTIPLE_PX = 32
"""Sides of the input of a detector and of an encoder are multiples of this."""
MAX_SIDE_PX = 8192
EMBEDDING_STRIDE_PX = 16
"""Input pixels per cell of the image embeddings."""
EMBEDDING_CHANNELS = 256
MASK_STRIDE_PX = 4
"""Input pixels per cell of the decoder's masks and of a detector's prototypes."""


@dataclass(frozen=True)
class Contract:
    """One stage: the names of its inputs and outputs, and what of the pipeline says how its input is made.

    Attributes:
        inputs: names, the one that carries the picture first.
        outputs: names that every graph of the stage has.
        fed_by: field of `Pipeline` that describes the first input; None where another stage makes it.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    fed_by: Literal["detector_input", "encoder_input", "crop"] | None


CONTRACTS: Mapping[StageName, Contract] = {
    "detector": Contract((IMAGES,), (BOX_LOGITS, CLASS_LOGITS), "detector_input"),
    "encoder": Contract((IMAGE,), (IMAGE_EMBEDDINGS,), "encoder_input"),
    "decoder": Contract((IMAGE_EMBEDDINGS, BOXES), (LOW_RES_MASKS, PREDICTED_IOU), None),
    "segmenter": Contract((CROPS,), (MASK_LOGITS, PREDICTED_IOU), "crop"),
}

Tensor = TypeVar("Tensor")


def tensor_of(outputs: Mapping[str, Tensor], name: str) -> Tensor:
    """Return an output by its name, or by the name that it had in graphs exported before.

    Raises:
        KeyError: the graph has neither.
    """
    return outputs[OLD_NAMES[name] if name not in outputs and OLD_NAMES.get(name) in outputs else name]


def is_input_size(size: tuple[int, int]) -> bool:
    """Say whether a detector or an encoder can take pictures of this (height, width)."""
    return all(side % SIDE_MULTIPLE_PX == 0 and SIDE_MULTIPLE_PX <= side <= MAX_SIDE_PX for side in size)
