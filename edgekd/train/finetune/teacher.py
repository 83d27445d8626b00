"""Mask distillation: a larger promptable network answers the same prompts, and its masks become soft targets.

In: crops, prompts, and a `MaskTeacher`. Out: a loss on the student's mask that it rates best. Features of a large
segmenter saturate as a target for a small one; masks under the same prompt do not (TinySAM, arXiv 2312.13789; EdgeSAM,
arXiv 2312.06660).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ModelError
from edgekd.losses.segmentation import dice_loss, focal_loss
from edgekd.models.prompt_decoder import PADDING
from edgekd.models.tinysam import TinySam, load_tinysam
from edgekd.train.finetune.prompts import PromptBatch

FOCAL, DICE = 10.0, 0.5
"""Half of the weights of the true masks: the teacher errs too."""

SAM_SIDE_PX = 1024


class MaskTeacher(Protocol):
    """A frozen promptable network."""

    def masks(self, batch: PromptBatch) -> Tensor:
        """Logits (P, 1, h, w) of its best mask for every prompt of `batch`, any h and w, covering the whole crop."""


class TinySamTeacher:
    """A TinySAM or MobileSAM checkpoint as teacher."""

    def __init__(self, model: TinySam) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def masks(self, batch: PromptBatch) -> Tensor:
        """Its best mask (P, 1, H/4, W/4)."""
        logits, iou = batch.decode(self.model, self.model.image_encoder(batch.images))
        return logits.gather(1, iou.argmax(dim=1).view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[-2:]))


class SamTeacher:
    """transformers' SamModel (SAM-B, -L, -H): crops are enlarged to the 1024 px it was trained at."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def masks(self, batch: PromptBatch) -> Tensor:
        """Its best mask (P, 1, 256, 256)."""
        side = int(self.model.config.vision_config.image_size)
        scale = side / batch.images.shape[-1]
        images = F.interpolate(batch.images, size=(side, side), mode="bilinear", align_corners=False)
        embeddings = self.model.get_image_embeddings(images)[batch.picture]
        coords = (batch.coords * scale).unsqueeze(1)
        if batch.kind == "point":
            labels = batch.labels.masked_fill(batch.labels == PADDING, -10)  # transformers' padding label
            out = self.model(
                image_embeddings=embeddings,
                input_points=coords,
                input_labels=labels.unsqueeze(1),
                multimask_output=True,
            )
        else:
            boxes = coords[:, :, :2].flatten(2)
            out = self.model(image_embeddings=embeddings, input_boxes=boxes, multimask_output=True)
        logits, iou = out.pred_masks[:, 0], out.iou_scores[:, 0]
        return logits.gather(1, iou.argmax(dim=1).view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[-2:]))


def load_teacher(path: Path) -> MaskTeacher:
    """A teacher from a TinySAM or MobileSAM checkpoint, or from a local folder of transformers' SamModel.

    Raises ModelError when it is neither.
    """
    if not path.is_dir():
        return TinySamTeacher(load_tinysam(path))
    try:
        from transformers import SamModel
    except ImportError as reason:
        raise ModelError(
            f"{path} is a transformers model, which needs transformers; pip install edgekd[sam3]"
        ) from reason
    if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
        raise ModelError(f"{path} holds no config.json with safetensors; give a local folder of a SamModel")
    return SamTeacher(SamModel.from_pretrained(path, local_files_only=True, use_safetensors=True))


def distillation_loss(teacher: MaskTeacher, batch: PromptBatch, logits: Tensor, iou: Tensor, weight: Tensor) -> Tensor:
    """Focal and dice between the mask (P, 3, h, w) the student rates best and the teacher's, a scalar."""
    chosen = logits.gather(1, iou.detach().argmax(dim=1).view(-1, 1, 1, 1).expand(-1, 1, *logits.shape[-2:]))
    answer = teacher.masks(batch).float()
    target = F.interpolate(answer, size=logits.shape[-2:], mode="bilinear", align_corners=False).sigmoid()
    return FOCAL * focal_loss(chosen, target, weight).mean() + DICE * dice_loss(chosen, target).mean()
