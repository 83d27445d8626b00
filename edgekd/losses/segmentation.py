"""Losses of a promptable segmenter: focal, dice, IoU prediction, and how three masks per prompt share them.

Logits and soft targets (P, m, H, W) in 0..1 go in, one value per mask (P, m) comes out; `prompt_loss` combines them.
A soft target is the share of a low-resolution cell that the object covers. Everything is computed in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FAR_SHARE = 0.05
"""What a cell far from the object counts, next to one in or near its box."""


@dataclass(frozen=True)
class MaskLossWeights:
    """Weights of the terms (Segment Anything, arXiv 2304.02643, appendix A: 20 focal, 1 dice, 1 IoU).

    `other_masks` is the share that the two masks that fit less receive, so that none of the three tokens dies on
    data as unambiguous as boxes; SAM has 0.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    other_masks: float = 0.05


def focal_loss(logits: Tensor, target: Tensor, weight: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Focal loss for soft targets, |y - p|^gamma * BCE (Li et al., arXiv 2006.04388, eq. 5), per mask.

    logits, target: (P, m, H, W). weight: broadcastable, e.g. DISW; the mean is taken over the weights. Returns (P, m).
    """
    logits, target = logits.float(), target.float()
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    loss = (target - logits.sigmoid()).abs().pow(gamma) * cross_entropy
    if weight is None:
        return loss.mean(dim=(-2, -1))
    weight = weight.float().expand_as(loss)
    return (loss * weight).sum(dim=(-2, -1)) / weight.sum(dim=(-2, -1))


def dice_loss(logits: Tensor, target: Tensor) -> Tensor:
    """1 - (2 sum(p y) + 1) / (sum p + sum y + 1) per mask (Milletari et al., arXiv 1606.04797). Returns (P, m)."""
    p, y = logits.float().sigmoid(), target.float()
    overlap = (p * y).sum(dim=(-2, -1))
    return 1 - (2 * overlap + 1) / (p.sum(dim=(-2, -1)) + y.sum(dim=(-2, -1)) + 1)


def mask_iou(logits: Tensor, target: Tensor) -> Tensor:
    """IoU of logits > 0 with target > 0.5, per mask (P, m); 1 where both are empty. Carries no gradient."""
    found, truth = logits.detach() > 0, target.detach() > 0.5
    union = (found | truth).sum(dim=(-2, -1))
    overlap = (found & truth).sum(dim=(-2, -1))
    return torch.where(union > 0, overlap / union.clamp(min=1), torch.ones_like(union, dtype=torch.float32))


def object_weight(boxes: Tensor, size: tuple[int, int], stride_px: float) -> Tensor:
    """Weight map (P, 1, H, W): 1 inside the box grown by half its sides, a twentieth elsewhere.

    `focal_loss` divides by the sum of the weights, so an object counts alike whatever its size: the per-object form of
    DISW, whose 1 / cells cancels there. boxes: (P, 4) xyxy input pixels; stride_px: pixels per cell.
    """
    height, width = size
    y = (torch.arange(height, device=boxes.device) + 0.5) * stride_px
    x = (torch.arange(width, device=boxes.device) + 0.5) * stride_px
    x1, y1, x2, y2 = boxes.float().unbind(dim=1)
    grow_x, grow_y = (x2 - x1) / 4 + stride_px, (y2 - y1) / 4 + stride_px
    in_x = (x >= (x1 - grow_x)[:, None]) & (x <= (x2 + grow_x)[:, None])
    in_y = (y >= (y1 - grow_y)[:, None]) & (y <= (y2 + grow_y)[:, None])
    near = (in_y[:, :, None] & in_x[:, None, :]).float()
    return (near + FAR_SHARE * (1 - near)).unsqueeze(1)


def prompt_loss(
    logits: Tensor, iou_predictions: Tensor, target: Tensor, weight: Tensor | None, weights: MaskLossWeights
) -> dict[str, Tensor]:
    """Loss of P prompts with m masks each: the mask that fits best carries the gradient, every IoU is learned.

    logits: (P, m, H, W); iou_predictions: (P, m); target: (P, 1, H, W) soft; weight: (P, 1, H, W) or None.
    Returns scalars: total, focal, dice, iou (means over prompts) and best_iou (of the mask rated best, no gradient).
    """
    target = target.expand_as(logits)
    focal, dice = focal_loss(logits, target, weight), dice_loss(logits, target)
    per_mask = weights.focal * focal + weights.dice * dice
    share = torch.full_like(per_mask, weights.other_masks)
    share.scatter_(1, per_mask.argmin(dim=1, keepdim=True), 1.0)
    iou = mask_iou(logits, target)
    iou_error = F.mse_loss(iou_predictions.float(), iou)
    total = (per_mask * share).sum(dim=1).mean() + weights.iou * iou_error
    rated_best = iou_predictions.detach().argmax(dim=1, keepdim=True)
    return {
        "total": total,
        "focal": focal.detach().amin(dim=1).mean(),
        "dice": dice.detach().amin(dim=1).mean(),
        "iou": iou_error.detach(),
        "best_iou": iou.gather(1, rated_best).mean(),
    }
