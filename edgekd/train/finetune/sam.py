"""TinySAM as a fine-tuning task: crops and whole frames in, prompted mask losses out.

A step draws crops at native resolution (so that small objects survive), one kind of prompt, and compares all three
masks with the truth at the network's own resolution, four input pixels per cell, as the share of each cell the object
covers. `adapter_rank` 0 trains without the spectral adapter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from edgekd.data.labels import LabelledPicture
from edgekd.errors import TrainingError
from edgekd.losses.segmentation import MaskLossWeights, object_weight, prompt_loss
from edgekd.models.prompt_decoder import MASK_CELL_PX
from edgekd.models.spectral_adapter import Adapted, attach_adapters
from edgekd.models.tinysam import ADAPTED, TinySam, save_tinysam
from edgekd.models.tinyvit import EMBEDDING_CHANNELS
from edgekd.train.finetune.auxiliary import DenseAuxiliary
from edgekd.train.finetune.crops import CropRecipe, draw_crops, some_objects
from edgekd.train.finetune.freeze import ADAPTER_PATTERN, TINYSAM, TINYSAM_FROM_NOTHING, FreezePolicy
from edgekd.train.finetune.prompts import PROMPT_KINDS, PromptBatch, PromptKind, known_kinds
from edgekd.train.finetune.quality import Mask, predict_objects, score, summarise
from edgekd.train.finetune.teacher import MaskTeacher, distillation_loss


@dataclass(frozen=True)
class TinySamData:
    """Pictures of a task and how they are drawn.

    Attributes:
        retention: pictures whose masks must not get worse; by default a few of the validation pictures.
        validation_px: longer sides at which the network is validated.
        prompts_per_crop: objects of a crop that are prompted, at most.
        kind_shares: how often each kind of prompt of `PROMPT_KINDS` is drawn; kinds that a network does not know are
            left out.
    """

    train: Sequence[LabelledPicture]
    validation: Sequence[LabelledPicture]
    retention: Sequence[LabelledPicture]
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
            raise TrainingError(
                f"adapter_rank is {adapter_rank} and there are no trained weights; give `weights`, or leave it out"
            )
        if adapter_rank and not isinstance(model.image_encoder.neck, Adapted):
            attach_adapters(model, ADAPTED, EMBEDDING_CHANNELS, adapter_rank)
        self.model: nn.Module = model
        self.tinysam, self.data, self.teacher = model, data, teacher
        self.kinds = known_kinds(model)
        shares = np.array([data.kind_shares[PROMPT_KINDS.index(kind)] for kind in self.kinds])
        self.kind_shares = shares / shares.sum()
        self.auxiliary: DenseAuxiliary | None = None
        if from_nothing:
            self.auxiliary = DenseAuxiliary(sorted({s.name_of(i) for s in data.train for i in range(len(s))}))
            self.model = nn.ModuleDict({"tinysam": model, "auxiliary": self.auxiliary})
        is_adapted = isinstance(model.image_encoder.neck, Adapted)
        self.policy = TINYSAM_FROM_NOTHING if from_nothing else _policy_for(is_adapted)

    def step_losses(self, stage: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Draw crops and prompts and return the losses; the stage decides nothing here."""
        crops = draw_crops(self.data.train, self.data.recipe, self.data.crops_per_step, rng)
        kind = self.kinds[rng.choice(len(self.kinds), p=self.kind_shares)]
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
        """Masks on the retention pictures for box, box and centre, and point, as far as the network knows them."""
        side = self.data.validation_px[0]
        return {
            kind: [m.predicted for sample in self.data.retention for m in self._objects(sample, side, kind)]
            for kind in self.kinds
        }

    def truths(self) -> list[Mask]:
        """The objects' true masks, in the order of `predictions`."""
        side = self.data.validation_px[0]
        return [m.truth for sample in self.data.retention for m in self._objects(sample, side, "box")]

    def save(self, path: Path) -> None:
        """Write the official checkpoint, with the adapter beside it where there is one."""
        save_tinysam(self.tinysam, path)

    def _objects(self, sample: LabelledPicture, side: int, kind: PromptKind) -> Any:
        return predict_objects(self.tinysam, sample, side, kind)


def _policy_for(is_adapted: bool) -> FreezePolicy:
    # The adapter's rank is the user's choice, so its count is free.
    parts = [replace(p, n_parameters=None) if p.patterns == (ADAPTER_PATTERN,) else p for p in TINYSAM.parts]
    return replace(TINYSAM, parts=tuple(parts) if is_adapted else tuple(parts[1:]))
