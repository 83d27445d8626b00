"""SAM3 as a fine-tuning task: a picture and a concept (class name, box, or both) in, masks of all its objects out.

A step draws crops and asks each for one of the data set's classes, sometimes one that is not there. The policy freezes
language, geometry, fusion and decoder, which still pass gradients to the vision blocks. Points are prompts of
Sam3TrackerModel, which shares the vision encoder; its freeze policy is `freeze.SAM3_TRACKER`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.data.labels import LabelledPicture
from edgekd.errors import TrainingError
from edgekd.losses.sam3 import ConceptTruth, sam3_loss
from edgekd.models.sam3 import n_vision_blocks
from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD
from edgekd.train.checkpoint import write_atomically
from edgekd.train.finetune.crops import Crop, CropRecipe, draw_crops, whole_frame
from edgekd.train.finetune.freeze import SAM3, SAM3_BLOCKS, sam3_of_depth
from edgekd.train.finetune.quality import Mask, mask_agreement

Tokens = tuple[Tensor, Tensor]
VISUAL_CONCEPT = "visual"
"""The word SAM3 was trained with where a box alone says what is meant."""

SAM3_PROMPTS = ("text", "box", "text+box")
ABSENT_SHARE = 0.2
"""How often a class is asked for that the crop does not show, so that presence learns to say no."""

_TO_SAM3_SCALE = np.array(PIXEL_STD, np.float32) / 127.5
_TO_SAM3_SHIFT = np.array(PIXEL_MEAN, np.float32) / 127.5 - 1


@dataclass(frozen=True)
class Sam3Data:
    """Pictures, and `tokens`: a class name to input_ids and attention_mask, both (1, length).

    retention: labelled pictures on which the quality must be kept, of the original task where there are any.
    """

    train: Sequence[LabelledPicture]
    validation: Sequence[LabelledPicture]
    retention: Sequence[LabelledPicture]
    tokens: Callable[[str], Tokens]
    recipe: CropRecipe
    pictures_per_step: int = 1

    @property
    def class_names(self) -> list[str]:
        """All classes of the training pictures, sorted."""
        return sorted({s.name_of(i) for s in self.train for i in range(len(s))})


class Sam3Task:
    """A `SegmenterTask` for transformers' Sam3Model with adapters; see the module."""

    def __init__(self, model: nn.Module, data: Sam3Data) -> None:
        self.model, self.data = model, data
        blocks = n_vision_blocks(model)
        self.n_blocks = blocks
        self.policy = SAM3 if blocks == SAM3_BLOCKS else sam3_of_depth(blocks)

    def step_losses(self, stage: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of crops, each asked for one class by text."""
        crops = draw_crops(self.data.train, self.data.recipe, self.data.pictures_per_step, rng)
        concepts = [self._concept(crop, rng) for crop in crops]
        out = self._forward(np.stack([crop.image for crop in crops]), concepts, None)
        truths = [_truth(crop, concept) for crop, concept in zip(crops, concepts, strict=True)]
        return sam3_loss(out.pred_masks, out.pred_boxes, out.semantic_seg, out.presence_logits, truths)

    def layers_below_top(self, parameter_name: str) -> int:
        """Heads and adapters are the top; the vision blocks follow from the last."""
        match = re.search(r"backbone\.layers\.(\d+)", parameter_name)
        return self.n_blocks - int(match[1]) if match else 0

    def evaluate(self) -> dict[str, Any]:
        """Mean IoU of the semantic mask per picture and class that is there, asked by text."""
        ious = [
            mask_agreement(mask, truth)
            for crop, concept in self._questions(self.data.validation)
            for mask, truth in [(self._mask(crop, concept, "text"), _union(crop, concept))]
        ]
        return {"text_miou": round(float(np.mean(ious)), 4), "n_questions": len(ious)}

    def predictions(self) -> dict[str, list[Mask]]:
        """Semantic masks per kind of prompt on the retention pictures."""
        questions = list(self._questions(self.data.retention))
        return {kind: [self._mask(crop, concept, kind) for crop, concept in questions] for kind in SAM3_PROMPTS}

    def truths(self) -> list[Mask]:
        """The true masks of the questions, in the order of `predictions`: what is kept is quality, not agreement."""
        return [_union(crop, concept) for crop, concept in self._questions(self.data.retention)]

    def save(self, path: Path) -> None:
        """Write what training changed: adapters, last blocks, heads; the frozen rest stays where it came from."""
        names = {n for n, _ in self.model.named_parameters() for p in self.policy.parts if p.stages and _claims(p, n)}
        state = self.model.state_dict()
        write_atomically(path, {"sam3_delta": {n: state[n].detach().cpu() for n in sorted(names)}})

    def _concept(self, crop: Crop, rng: np.random.Generator) -> str:
        present = sorted(set(crop.class_names))
        absent = [name for name in self.data.class_names if name not in present]
        pool = absent if absent and rng.random() < ABSENT_SHARE else present
        return pool[int(rng.integers(len(pool)))]

    def _questions(self, samples: Sequence[LabelledPicture]) -> Iterator[tuple[Crop, str]]:
        for sample in samples:
            side = self.data.recipe.side_px
            crop = whole_frame(sample, side, multiple_px=side)
            for concept in sorted(set(crop.class_names)):
                yield crop, concept

    @torch.no_grad()
    def _mask(self, crop: Crop, concept: str, kind: str) -> Mask:
        self.model.eval()
        side = self.data.recipe.side_px
        first = crop.boxes[crop.class_names.index(concept)] / side
        box = torch.tensor([[[(first[0] + first[2]) / 2, (first[1] + first[3]) / 2, *(first[2:] - first[:2])]]])
        text = VISUAL_CONCEPT if kind == "box" else concept
        out = self._forward(crop.image[None], [text], None if kind == "text" else box.float())
        size = (side, side)
        up = nn.functional.interpolate(out.semantic_seg.float(), size=size, mode="bilinear", align_corners=False)
        mask: Mask = (up[0, 0] > 0).cpu().numpy()
        return mask

    def _forward(self, images: NDArray[np.float32], concepts: Sequence[str], boxes: Tensor | None) -> Any:
        device = next(self.model.parameters()).device
        pixels = images * _TO_SAM3_SCALE[:, None, None] + _TO_SAM3_SHIFT[:, None, None]
        tokens = [self.data.tokens(concept) for concept in concepts]
        return self.model(
            pixel_values=torch.from_numpy(pixels).to(device),
            input_ids=torch.cat([ids for ids, _ in tokens]).to(device),
            attention_mask=torch.cat([mask for _, mask in tokens]).to(device),
            input_boxes=None if boxes is None else boxes.to(device),
        )


def _claims(part: Any, name: str) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, pattern) for pattern in part.patterns)


def _truth(crop: Crop, concept: str) -> ConceptTruth:
    chosen = [i for i, name in enumerate(crop.class_names) if name == concept]
    height, width = crop.image.shape[1:]
    masks = torch.from_numpy(crop.masks[chosen]).float()
    if not chosen:
        masks = torch.zeros(0, height, width)
    return ConceptTruth(masks, torch.from_numpy(crop.boxes[chosen] / np.array([width, height] * 2, np.float32)))


def _union(crop: Crop, concept: str) -> Mask:
    chosen = [i for i, name in enumerate(crop.class_names) if name == concept]
    if not chosen:
        raise TrainingError(f"the picture shows no '{concept}'; ask for a class that it shows")
    return np.asarray(crop.masks[chosen].any(axis=0))
