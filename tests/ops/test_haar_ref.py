"""The reference against PyWavelets in float64, in every mode and at odd sizes."""

import numpy as np
import pytest
import pywt
import torch

from edgekd.ops import haar_dwt2_ref, haar_idwt2_ref, haar_weighted_mse_ref

SIZES = [(1, 1), (2, 2), (7, 9), (6, 34), (13, 20), (130, 5)]


@pytest.mark.parametrize("mode", ["zero", "symmetric", "periodization"])
@pytest.mark.parametrize("size", SIZES)
def test_bands_are_those_of_pywavelets(size, mode):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    approx, details = pywt.dwt2(x.numpy(), "haar", mode=mode)
    for ours, theirs in zip(haar_dwt2_ref(x, mode), (approx, *details), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", ["zero", "symmetric", "periodization"])
@pytest.mark.parametrize("size", SIZES)
def test_inverse_restores_the_input(size, mode):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(haar_idwt2_ref(haar_dwt2_ref(x, mode), size), x)


def test_loss_by_hand():
    student, teacher = torch.tensor([[[[3.0, 1.0], [1.0, 1.0]]]]), torch.zeros(1, 1, 2, 2)
    # bands of the difference: (3, 1, 1, 1); 2 * 9 + 5 * (1 + 1 + 1) / 3 = 23, times the cell weight 4
    loss = haar_weighted_mse_ref(student, teacher, 2.0, 5.0, torch.full((1, 1, 1, 1), 4.0))
    assert loss.item() == 92.0
