"""Segmentation losses against their equations, and who carries the gradient."""

import pytest
import torch
from torch.nn import functional as F

from edgekd.losses.segmentation import (
    MaskLossWeights,
    dice_loss,
    focal_loss,
    mask_iou,
    object_weight,
    prompt_loss,
)


def test_focal_is_the_equation_and_gamma_zero_is_cross_entropy() -> None:
    logits, target = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    p = logits.sigmoid()
    expected = -((target - p).abs() ** 2) * (target * p.log() + (1 - target) * (1 - p).log())
    torch.testing.assert_close(focal_loss(logits, target), expected.mean(dim=(-2, -1)))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(dim=(-2, -1))
    torch.testing.assert_close(focal_loss(logits, target, gamma=0.0), cross_entropy)


def test_a_constant_weight_changes_nothing() -> None:
    logits, target = torch.randn(1, 2, 4, 4), torch.rand(1, 2, 4, 4)
    weighted = focal_loss(logits, target, weight=torch.full((1, 1, 4, 4), 3.0))
    torch.testing.assert_close(weighted, focal_loss(logits, target))


def test_dice_and_iou_at_their_ends() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2, :] = 1
    sure = (target * 2 - 1) * 50
    assert dice_loss(sure, target).item() == pytest.approx(0.0, abs=1e-6)
    assert dice_loss(-sure, target).item() == pytest.approx(1 - 1 / 17, abs=1e-6)
    assert mask_iou(sure, target).item() == 1 and mask_iou(-sure, target).item() == 0
    assert mask_iou(torch.full((1, 1, 2, 2), -1.0), torch.zeros(1, 1, 2, 2)).item() == 1


def test_object_weight_by_hand() -> None:
    """A box of 16 px at cells of 4 px grows by a quarter of its side and a cell: x from 8 to 40 px, cells 2 to 9."""
    weight = object_weight(torch.tensor([[16.0, 16.0, 32.0, 32.0]]), (16, 16), 4.0)[0, 0]
    expected = torch.full((16, 16), 0.05)
    expected[2:10, 2:10] = 1.0
    torch.testing.assert_close(weight, expected)


def test_the_best_mask_carries_the_gradient() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., 1:3, 1:3] = 1
    logits = torch.stack([-target[0, 0], target[0, 0] * 4 - 2, torch.zeros(4, 4)]).unsqueeze(0).requires_grad_()
    iou = torch.tensor([[0.9, 0.1, 0.1]], requires_grad=True)
    losses = prompt_loss(logits, iou, target, None, MaskLossWeights(other_masks=0.0))
    losses["total"].backward()
    assert logits.grad is not None and iou.grad is not None
    assert [bool(g.abs().max() > 0) for g in logits.grad[0]] == [False, True, False]
    assert losses["best_iou"] == 0  # the head rates the wrong mask highest
    assert iou.grad[0, 0] > 0 and iou.grad[0, 1] < 0


def test_every_mask_learns_a_little_by_default() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    prompt_loss(logits, torch.rand(2, 3), torch.rand(2, 1, 4, 4), None, MaskLossWeights())["total"].backward()
    assert logits.grad is not None and (logits.grad.abs().amax(dim=(-2, -1)) > 0).all()


def test_half_precision_logits_are_computed_in_fp32() -> None:
    logits = torch.full((1, 1, 4, 4), -30.0, dtype=torch.bfloat16)
    assert focal_loss(logits, torch.ones(1, 1, 4, 4)).dtype == torch.float32
