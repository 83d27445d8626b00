"""TinySAM as a fine-tuning task: crops and whole frames in, prompted mask losses out.

A step draws crops at native resolution (so that small objects survive), one kind of prompt, and compares all three
masks with the truth at the network's own resolution, four input pixels a cell, as the share of each cell the object
covers. `adapter_rank` 0 trains without the spectral adapter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import TrainingError
from edgekd.losses.segmentation import MaskLossWeights, object_weight, prompt_loss
from edgekd.models.prompt_decoder import MASK_CELL_PX, Frame, cut_to_boxes, draw_boxes, draw_points
from edgekd.models.spectral_adapter import Adapted, attach_adapters
from edgekd.models.tinysam import ADAPTED, TinySam, save_tinysam
from edgekd.models.tinyvit import EMBEDDING_CHANNELS
from edgekd.train.finetune.auxiliary import DenseAuxiliary
from edgekd.train.finetune.crops import Crop, CropRecipe, SegmentationSample, draw_crop
from edgekd.train.finetune.freeze import FreezePolicy
from edgekd.train.finetune.freeze_policies import ADAPTER_PATTERN, TINYSAM, TINYSAM_FROM_NOTHING
from edgekd.train.finetune.prompts import BOX_NOISE, PROMPT_KINDS, PromptKind, draw_prompts
from edgekd.train.finetune.quality import Mask, predict_objects, score, summarise
from edgekd.train.finetune.teacher import MaskTeacher, distillation_loss

_TRIES = 50


@dataclass(frozen=True)
class TinySamData:
    """Pictures of a task and how they are drawn.

    Attributes:
        retention: pictures whose masks must not get worse; by default a few of the validation pictures.
        validation_px: longer sides at which the network is validated.
        prompts_per_crop: objects of a crop that are prompted, at most.
        kind_shares: how often each kind of prompt of `PROMPT_KINDS` is drawn.
    """

    train: Sequence[SegmentationSample]
    validation: Sequence[SegmentationSample]
    retention: Sequence[SegmentationSample]
    recipe: CropRecipe = CropRecipe()
    crops_per_step: int = 4
    prompts_per_crop: int = 8
    validation_px: tuple[int, ...] = (1024,)
    kind_shares: tuple[float, ...] = (0.72, 0.12, 0.16)
    weights: MaskLossWeights = field(default_factory=MaskLossWeights)


class TinySamTask:
    """A `SegmenterTask` for TinySAM; see the module. `teacher` adds mask distillation."""

    def __init__(
        self,
        model: TinySam,
        data: TinySamData,
        adapter_rank: int = 0,
        from_nothing: bool = False,
        teacher: MaskTeacher | None = None,
    ) -> None:
        if from_nothing and adapter_rank:
            raise TrainingError("an adapter adapts trained weights; give --weights, or train from nothing without it")
        if adapter_rank and not isinstance(model.image_encoder.neck, Adapted):
            attach_adapters(model, ADAPTED, EMBEDDING_CHANNELS, adapter_rank)
        self.model: nn.Module = model
        self.tinysam, self.data, self.teacher = model, data, teacher
        self.auxiliary: DenseAuxiliary | None = None
        if from_nothing:
            self.auxiliary = DenseAuxiliary(sorted({o.class_name for s in data.train for o in s.objects}))
            self.model = nn.ModuleDict({"tinysam": model, "auxiliary": self.auxiliary})
        is_adapted = isinstance(model.image_encoder.neck, Adapted)
        self.policy = TINYSAM_FROM_NOTHING if from_nothing else _policy_for(is_adapted)

    def step_losses(self, stage: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Draw crops and prompts and return the losses; the stage decides nothing here."""
        crops = draw_crops(self.data.train, self.data.recipe, self.data.crops_per_step, rng)
        kind = PROMPT_KINDS[rng.choice(len(PROMPT_KINDS), p=self.data.kind_shares)]
        prompted = [some_objects(crop, self.data.prompts_per_crop, rng) for crop in crops]
        batch = PromptBatch.of(prompted, kind, rng).to(next(self.model.parameters()).device)
        embeddings = self.tinysam.image_encoder(batch.images)
        logits, iou = batch.decode(self.tinysam, embeddings)
        weight = object_weight(batch.boxes, (int(batch.target.shape[-2]), int(batch.target.shape[-1])), MASK_CELL_PX)
        losses = prompt_loss(logits, iou, batch.target, weight, self.data.weights)
        if self.teacher is not None:
            losses["distillation"] = distillation_loss(self.teacher, batch, logits, iou, weight)
            losses["total"] = losses["total"] + losses["distillation"]
        if self.auxiliary is not None:
            losses["auxiliary"] = self.auxiliary(embeddings, batch.images, crops)
            losses["total"] = losses["total"] + losses["auxiliary"]
        return losses

    def layers_below_top(self, parameter_name: str) -> int:
        """Decoder, neck and adapter are the top; TinyViT's stages follow."""
        match = re.search(r"backbone\.stages_(\d)", parameter_name)
        if match:
            return 4 - int(match[1])
        return 5 if "patch_embed" in parameter_name else 0

    def evaluate(self) -> dict[str, Any]:
        """Mean IoU with ground-truth boxes by input size."""
        result = {}
        for side in self.data.validation_px:
            scores = [s for sample in self.data.validation for s in score(self._objects(sample, side, "box"))]
            result[f"box_{side}px"] = summarise(scores)
        return result

    def predictions(self) -> dict[str, list[Mask]]:
        """Masks for box, box and centre, and point on the retention pictures."""
        side = self.data.validation_px[0]
        return {
            kind: [m.predicted for sample in self.data.retention for m in self._objects(sample, side, kind)]
            for kind in PROMPT_KINDS
        }

    def truths(self) -> list[Mask]:
        """The objects' true masks, in the order of `predictions`."""
        side = self.data.validation_px[0]
        return [m.truth for sample in self.data.retention for m in self._objects(sample, side, "box")]

    def save(self, path: Path) -> None:
        """Write the official checkpoint, with the adapter beside it where there is one."""
        save_tinysam(self.tinysam, path)

    def _objects(self, sample: SegmentationSample, side: int, kind: PromptKind) -> Any:
        return predict_objects(self.tinysam, sample, side, kind)


def _policy_for(is_adapted: bool) -> FreezePolicy:
    # The adapter's rank is the user's choice, so its count is free.
    parts = [replace(p, n_parameters=None) if p.patterns == (ADAPTER_PATTERN,) else p for p in TINYSAM.parts]
    return FreezePolicy(TINYSAM.model, tuple(parts) if is_adapted else tuple(parts[1:]))


def draw_crops(
    samples: Sequence[SegmentationSample], recipe: CropRecipe, n: int, rng: np.random.Generator
) -> list[Crop]:
    """n crops with at least one object each; pictures with more objects are drawn more often (square root)."""
    shares = np.sqrt([len(s.objects) for s in samples])
    shares /= shares.sum()
    crops: list[Crop] = []
    for _ in range(_TRIES * n):
        crop = draw_crop(samples[rng.choice(len(samples), p=shares)], recipe, rng)
        if crop is not None:
            crops.append(crop)
        if len(crops) == n:
            return crops
    raise TrainingError(
        f"{_TRIES * n} crops of {recipe.side_px} px held no object; the polygons are too small, or raise --imgsz"
    )


def some_objects(crop: Crop, n: int, rng: np.random.Generator) -> Crop:
    """The same crop with at most n of its objects, drawn at random."""
    chosen = rng.permutation(len(crop.masks))[:n]
    names = tuple(crop.class_names[i] for i in chosen)
    return replace(crop, masks=crop.masks[chosen], boxes=crop.boxes[chosen], class_names=names)


@dataclass(frozen=True)
class PromptBatch:
    """Crops and one prompt per object, flattened to P prompts."""

    images: Tensor  # (B, 3, H, W)
    picture: Tensor  # (P,) int64: the crop of each prompt
    coords: Tensor  # (P, K, 2)
    labels: Tensor  # (P, K)
    boxes: Tensor  # (P, 4), tight
    target: Tensor  # (P, 1, H/4, W/4), share of the cell
    frame: Frame
    kind: PromptKind

    @staticmethod
    def of(crops: Sequence[Crop], kind: PromptKind, rng: np.random.Generator) -> PromptBatch:
        """Draw one prompt of `kind` for every object of the crops, which share one size."""
        prompts = [draw_prompts(kind, crop.masks, crop.boxes, rng, BOX_NOISE) for crop in crops]
        picture = torch.tensor([i for i, crop in enumerate(crops) for _ in range(len(crop.masks))])
        masks = torch.from_numpy(np.concatenate([crop.masks for crop in crops])).float().unsqueeze(1)
        return PromptBatch(
            images=torch.from_numpy(np.stack([crop.image for crop in crops])),
            picture=picture,
            coords=torch.cat([coords for coords, _ in prompts]),
            labels=torch.cat([labels for _, labels in prompts]),
            boxes=torch.from_numpy(np.concatenate([crop.boxes for crop in crops])),
            target=F.avg_pool2d(masks, MASK_CELL_PX),
            frame=Frame(
                torch.tensor([crop.frame_px for crop in crops])[picture],
                torch.tensor([crop.origin_px for crop in crops], dtype=torch.float32)[picture],
            ),
            kind=kind,
        )

    def to(self, device: torch.device) -> PromptBatch:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "picture", "coords", "labels")}
        frame = Frame(self.frame.size_px.to(device), self.frame.origin_px.to(device))
        return PromptBatch(
            **moved, boxes=self.boxes.to(device), target=self.target.to(device), frame=frame, kind=self.kind
        )

    def drawn(self) -> Tensor:
        """The prompts as mask prompts (P, 1, H/4, W/4)."""
        height, width = self.target.shape[-2:]
        if self.kind == "point":
            return draw_points(self.coords, self.labels, height, width)
        return draw_boxes(self.coords[:, :2].flatten(1), height, width)

    def decode(self, model: TinySam, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, 3, H/4, W/4) and iou_predictions (P, 3) of `model` from its embeddings (B, 256, h, w), fp32.

        A model that is told its boxes by drawing is cut to them, as `PromptDecoder` does: cells outside cost nothing.
        """
        if len(self.images) > 1:
            embeddings = embeddings[self.picture]
        drawn = self.drawn() if model.draws_prompts else None
        logits, iou = model.decode(embeddings, self.coords, self.labels, self.frame, drawn)
        if drawn is not None and self.kind != "point":
            n_masks, boxes = logits.shape[1], self.coords[:, :2].flatten(1)
            cut = cut_to_boxes(logits.float().flatten(0, 1), boxes.repeat_interleave(n_masks, dim=0))
            logits = cut.unflatten(0, (-1, n_masks))
        return logits.float(), iou.float()
