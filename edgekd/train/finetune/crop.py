"""The crop segmenter as a fine-tuning task: crops of labelled objects in, one small network that draws their masks out.

In: `CropData` (objects to learn from, pictures to be judged on). Out: a `SegmenterTask` for `finetune.loop`. The
network is judged as the runtime uses it: windows of whole pixels around ground-truth boxes, cut and pasted by the
runtime, IoU in the pixels of the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.data.labels import LabelledPicture
from edgekd.data.read import read_pixels
from edgekd.losses.crop import crop_loss
from edgekd.models.crop_segmenter import CropSegmenter, checkpoint_of, crop_input_of
from edgekd.runtime.segment import MaskOptions
from edgekd.runtime.turned_crops import cut_boxes, masks_of_boxes
from edgekd.train.checkpoint import write_atomically
from edgekd.train.finetune.averaged import Stage
from edgekd.train.finetune.crop_data import Augmentation, CropObject, draw_batch
from edgekd.train.finetune.crops import tight_box
from edgekd.train.finetune.freeze import FreezePolicy, Part
from edgekd.train.finetune.loop import FinetuneConfig
from edgekd.train.finetune.quality import Mask, ObjectMask, score, summarise
from edgekd.types import Detections

POLICY = FreezePolicy("crop segmenter", (Part("network", ("*",), frozenset({1})),))
CROP_STEPS = 2400
_CROPS_AT_ONCE = 64


def crop_config(n_steps: int, seed: int) -> FinetuneConfig:
    """Settings with which the network learns from nothing."""
    return FinetuneConfig(
        stages=(Stage(1, n_steps),),
        learning_rate=2e-3,
        final_share=0.005,
        weight_decay=0.05,
        warmup_steps=100,
        ema_decay=0.996,
        clip_norm=5.0,
        seed=seed,
        save_every=200,
    )


@dataclass(frozen=True)
class CropData:
    """What the network learns from and is judged on.

    Attributes:
        train: objects.
        validation: pictures with true masks.
        batch: crops per step.
        augmentation: how crops differ from their objects.
        detail_weight: of the Haar detail bands in the loss; 0 leaves them out.
        truth: what the masks of `validation` are: "box" (true masks of ground-truth boxes) or a teacher's.
        oriented: ground-truth boxes are the smallest turned ones, and crops are turned with them.
    """

    train: Sequence[CropObject]
    validation: Sequence[LabelledPicture]
    batch: int = 32
    augmentation: Augmentation = field(default_factory=Augmentation)
    detail_weight: float = 0.0
    truth: str = "box"
    oriented: bool = False


class CropTask:
    """A `SegmenterTask`; see the module."""

    def __init__(self, model: CropSegmenter, data: CropData) -> None:
        self.model, self.data = model.to(memory_format=torch.channels_last), data
        self.policy = POLICY

    def step_losses(self, stage: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one batch of crops."""
        batch = draw_batch(self.data.train, self.model.size.side_px, self.data.batch, rng, self.data.augmentation)
        device = next(self.model.parameters()).device
        crops, masks = torch.from_numpy(batch.crops).to(device), torch.from_numpy(batch.masks).to(device)
        logits, predicted_iou = self.model(crops)
        weights = torch.from_numpy(batch.weights).to(device)
        with torch.autocast(device.type, enabled=False):
            return crop_loss(logits, predicted_iou, masks.float() / 255, weights, self.data.detail_weight)

    def layers_below_top(self, parameter_name: str) -> int:
        """0: a network that starts from nothing learns at one rate everywhere."""
        return 0

    def evaluate(self) -> dict[str, Any]:
        """Quality with ground-truth boxes."""
        oriented = self.data.oriented
        masks = (found for sample in self.data.validation for found in predict_objects(self.model, sample, oriented))
        return {self.data.truth: summarise(score(masks))}

    def predictions(self) -> dict[str, list[Mask]]:
        """Nothing: the network had no earlier quality to keep."""
        return {}

    def truths(self) -> list[Mask] | None:
        """None; see `predictions`."""
        return None

    def save(self, path: Path) -> None:
        """Write the checkpoint that `load_crop_segmenter` reads."""
        names = tuple(sorted({item.class_name for item in self.data.train}))
        write_atomically(path, checkpoint_of(self.model, names))


@torch.no_grad()
def predict_objects(model: CropSegmenter, sample: LabelledPicture, oriented: bool = False) -> Iterator[ObjectMask]:
    """The network's mask of every object of one picture, from its ground-truth box, turned where `oriented`."""
    model.eval()
    picture, spec = read_pixels(sample), crop_input_of(model)
    seen = [(index, truth) for index in range(len(sample)) if (truth := sample.mask(index)).any()]
    device = next(model.parameters()).device
    for first in range(0, len(seen), _CROPS_AT_ONCE):
        chunk = seen[first : first + _CROPS_AT_ONCE]
        boxes = Detections.from_boxes(np.array([tight_box(truth) for _, truth in chunk], np.float32))
        if oriented:
            corners = np.array([turned_around_mask(truth) for _, truth in chunk], np.float32)
            boxes = replace(boxes, corners=corners)
        crops = torch.from_numpy(cut_boxes(picture, boxes, spec)).to(device)
        logits, iou = (out.float().cpu().numpy() for out in model(crops))
        masks = masks_of_boxes((logits, iou), boxes, sample.size_px, spec, MaskOptions())
        for place, (index, truth) in enumerate(chunk):
            yield ObjectMask(sample.name_of(index), truth > 0, masks.full(place), float(iou[place]))


def turned_around_mask(mask: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Corners (4, 2) of the smallest turned box around the pixels of a mask (H, W), which must not be empty."""
    rows, columns = np.nonzero(mask)
    pixels = np.stack([columns, rows], 1).astype(np.float32)
    edges = np.concatenate([pixels + offset for offset in ((0, 0), (1, 0), (0, 1), (1, 1))]).astype(np.float32)
    return np.asarray(cv2.boxPoints(cv2.minAreaRect(cv2.convexHull(edges))), np.float32)
