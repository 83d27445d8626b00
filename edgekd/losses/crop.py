"""Loss of the crop segmenter: is every pixel right, is the whole mask right, and does the network know how right it is.

mask_logits (n, S, S), predicted_iou (n,), soft targets (n, S, S) in 0..1 and a weight per crop go in; scalars come out.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgekd.losses.segmentation import dice_loss, mask_iou
from edgekd.ops import haar_weighted_mse


def crop_loss(
    logits: Tensor, predicted_iou: Tensor, target: Tensor, weight: Tensor, detail_weight: float = 0.0
) -> dict[str, Tensor]:
    """BCE + dice + squared error of the predicted IoU, each a mean weighted per crop, computed in fp32.

    detail_weight > 0 adds that share of the distance between the Haar detail bands of the probabilities and of the
    target: what a mask's edge looks like, without its area. Returns scalars: total, bce, dice, iou, miou, and detail
    where it is asked for.
    """
    logits, predicted_iou = logits.float(), predicted_iou.float()
    share = weight / weight.sum()
    bce = (F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(1, 2)) * share).sum()
    dice = (dice_loss(logits, target) * share).sum()
    iou = mask_iou(logits, target)
    iou_error = ((predicted_iou - iou).square() * share).sum()
    terms = {"bce": bce, "dice": dice, "iou": iou_error}
    total = bce + dice + iou_error
    if detail_weight > 0:
        scale = share.sqrt()[:, None, None, None] * len(share) ** 0.5
        probability, truth = logits.sigmoid().unsqueeze(1) * scale, target.unsqueeze(1) * scale
        detail = haar_weighted_mse(probability.contiguous(), truth.contiguous(), 0.0, 1.0)
        terms["detail"] = detail
        total = total + detail_weight * detail
    values = {name: value.detach() for name, value in terms.items()}
    return {"total": total, **values, "miou": (iou * share).sum()}
