"""The crop loss: what each term says, weights per crop, and the Haar term against the reference."""

from __future__ import annotations

import torch

from edgekd.losses.crop import crop_loss
from edgekd.ops import haar_weighted_mse_ref


def scene() -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.zeros(2, 16, 16)
    target[:, 4:12, 4:12] = 1
    return torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0)), target


def test_the_right_mask_costs_nothing() -> None:
    _, target = scene()
    losses = crop_loss(40 * target - 20, torch.ones(2), target, torch.ones(2), 1.0)
    assert float(losses["total"]) < 1e-3 and float(losses["miou"]) == 1.0


def test_a_weight_counts_as_often_as_the_crop_itself() -> None:
    logits, target = scene()
    rated = torch.tensor([0.3, 0.9])
    rows = [0, 0, 0, 1]
    repeated = crop_loss(logits[rows], rated[rows], target[rows], torch.ones(4), 0.5)
    weighted = crop_loss(logits, rated, target, torch.tensor([3.0, 1.0]), 0.5)
    for name, value in repeated.items():
        torch.testing.assert_close(weighted[name], value)


def test_the_detail_term_is_the_reference_of_the_probabilities() -> None:
    logits, target = scene()
    losses = crop_loss(logits, torch.ones(2), target, torch.ones(2), 2.0)
    plain = crop_loss(logits, torch.ones(2), target, torch.ones(2))
    expected = haar_weighted_mse_ref(logits.sigmoid().unsqueeze(1), target.unsqueeze(1), 0.0, 1.0)
    torch.testing.assert_close(losses["detail"], expected)
    torch.testing.assert_close(losses["total"], plain["total"] + 2 * expected)
    assert "detail" not in plain
