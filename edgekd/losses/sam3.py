"""SAM3's losses on the outputs of transformers' Sam3Model, which has none: matched masks, semantic mask, presence.

Weights as in the released training configuration: masks 200 focal and 10 dice, semantic segmentation 20 cross-entropy
and 30 dice, presence 1. Boxes and scores come from frozen parts and are only used to match.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.losses.segmentation import dice_loss, focal_loss

MASK_FOCAL, MASK_DICE = 200.0, 10.0
SEMANTIC_BCE, SEMANTIC_DICE = 20.0, 30.0
PRESENCE = 1.0
MATCH_BOX, MATCH_MASK = 5.0, 2.0


@dataclass(frozen=True)
class ConceptTruth:
    """The objects of one concept in one picture: masks (n, H, W) 0 or 1, boxes (n, 4) xyxy in 0..1; n may be 0."""

    masks: Tensor
    boxes: Tensor


@torch.no_grad()
def match(mask_logits: Tensor, boxes: Tensor, truth: ConceptTruth) -> tuple[Tensor, Tensor]:
    """Assign queries to objects (Hungarian; box L1 and dice): masks (Q, h, w), boxes (Q, 4) to two index lists."""
    from scipy.optimize import linear_sum_assignment

    target = _resized(truth.masks, mask_logits).flatten(1)
    p = mask_logits.float().sigmoid().flatten(1)
    overlap = p @ target.T
    dice = 1 - (2 * overlap + 1) / (p.sum(1)[:, None] + target.sum(1)[None] + 1)
    cost = MATCH_BOX * torch.cdist(boxes.float(), truth.boxes.float(), p=1) + MATCH_MASK * dice
    query, index = linear_sum_assignment(cost.cpu().numpy())
    return torch.as_tensor(query), torch.as_tensor(index)


def sam3_loss(
    mask_logits: Tensor, boxes: Tensor, semantic: Tensor, presence: Tensor, truths: list[ConceptTruth]
) -> dict[str, Tensor]:
    """Losses of a batch of (picture, concept) pairs.

    mask_logits: (B, Q, h, w); boxes: (B, Q, 4) xyxy in 0..1; semantic: (B, 1, h', w'); presence: (B, 1). Returns the
    scalars total, mask, semantic, presence. A concept without objects adds an empty semantic mask and a presence of 0.
    """
    masks, targets = [], []
    for logits, box, truth in zip(mask_logits, boxes, truths, strict=True):
        if len(truth.masks):
            query, index = match(logits, box, truth)
            masks.append(logits[query])
            targets.append(_resized(truth.masks, logits)[index])
    found, wanted = torch.cat([*masks, mask_logits[0, :0]])[:, None], torch.cat([*targets, mask_logits[0, :0].float()])
    mask = _mean(MASK_FOCAL * focal_loss(found, wanted[:, None]) + MASK_DICE * dice_loss(found, wanted[:, None]))
    union = torch.stack([_resized(t.masks.sum(dim=0, keepdim=True).clamp(max=1), semantic[0]) for t in truths])
    cross_entropy = F.binary_cross_entropy_with_logits(semantic.float(), union)
    area = SEMANTIC_BCE * cross_entropy + SEMANTIC_DICE * dice_loss(semantic, union).mean()
    is_there = torch.tensor([[float(len(t.masks) > 0)] for t in truths], device=presence.device)
    there = PRESENCE * F.binary_cross_entropy_with_logits(presence.float(), is_there)
    return {"total": mask + area + there, "mask": mask.detach(), "semantic": area.detach(), "presence": there.detach()}


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()


def _resized(masks: Tensor, like: Tensor) -> Tensor:
    # Share of each cell that a mask covers: (n, H, W) -> (n, h, w).
    return F.interpolate(masks[:, None].float(), size=like.shape[-2:], mode="area")[:, 0]
