"""The identities of the Haar transform as properties over random shapes and values."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.ops import haar_dwt2, haar_idwt2, haar_weighted_mse

EVEN = st.integers(1, 24).map(lambda n: 2 * n)
ANY = st.integers(1, 40)
WEIGHT = st.floats(0.01, 10)
MODES = st.sampled_from(["zero", "symmetric", "periodization"])
SEED = st.integers(0, 2**31)
few = settings(max_examples=25, deadline=None)


def random_map(seed, height, width, n=2, c=3):
    return torch.randn(n, c, height, width, generator=torch.Generator().manual_seed(seed))


def cells(x):
    n, c, height, width = x.shape
    return x.view(n, c, height // 2, 2, width // 2, 2).transpose(3, 4).reshape(n, c, height // 2, width // 2, 4)


@few
@given(SEED, EVEN, EVEN)
def test_energy_is_kept_in_every_cell(seed, height, width):
    x = random_map(seed, height, width)
    energy = sum(band.square() for band in haar_dwt2(x))
    torch.testing.assert_close(energy, cells(x).square().sum(-1), rtol=1e-5, atol=1e-5)


@few
@given(SEED, ANY, ANY)
def test_zero_padding_keeps_the_energy_of_odd_sizes(seed, height, width):
    x = random_map(seed, height, width).double()
    energy = sum(band.square().sum() for band in haar_dwt2(x))
    torch.testing.assert_close(energy, x.square().sum())


@few
@given(SEED, ANY, ANY, MODES)
def test_the_inverse_restores(seed, height, width, mode):
    x = random_map(seed, height, width)
    torch.testing.assert_close(haar_idwt2(haar_dwt2(x, mode), (height, width)), x, rtol=1e-6, atol=1e-6)


@few
@given(SEED, EVEN, EVEN)
def test_transform_is_linear(seed, height, width):
    x, y = random_map(seed, height, width), random_map(seed + 1, height, width)
    for a, b, both in zip(haar_dwt2(x), haar_dwt2(y), haar_dwt2(x - y), strict=True):
        torch.testing.assert_close(a - b, both, rtol=1e-5, atol=1e-5)


@few
@given(SEED, EVEN, EVEN)
def test_flips_and_transposition(seed, height, width):
    x = random_map(seed, height, width)
    approx, horizontal, vertical, diagonal = haar_dwt2(x)
    flipped = haar_dwt2(x.flip(3))
    assert torch.equal(flipped.approx, approx.flip(3))
    assert torch.equal(flipped.horizontal, horizontal.flip(3))
    assert torch.equal(flipped.vertical, -vertical.flip(3))
    assert torch.equal(flipped.diagonal, -diagonal.flip(3))
    turned = haar_dwt2(x.transpose(2, 3))
    torch.testing.assert_close(turned.horizontal, vertical.transpose(2, 3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(turned.diagonal, diagonal.transpose(2, 3), rtol=1e-5, atol=1e-6)


@few
@given(st.floats(-1000, 1000, width=32), EVEN, EVEN)
def test_a_constant_has_no_detail(value, height, width):
    approx, *details = haar_dwt2(torch.full((1, 1, height, width), value))
    assert torch.equal(approx, torch.full_like(approx, 2 * value))
    assert all(torch.equal(band, torch.zeros_like(band)) for band in details)


@few
@given(SEED, EVEN, EVEN)
def test_small_integers_are_exact(seed, height, width):
    x = torch.randint(-8, 9, (1, 2, height, width), generator=torch.Generator().manual_seed(seed)).half()
    for band, exact in zip(haar_dwt2(x), haar_dwt2(x.double()), strict=True):
        assert torch.equal(band.double(), exact)


@few
@given(SEED, EVEN, EVEN, WEIGHT)
def test_three_times_the_low_weight_is_plain_mse(seed, height, width, weight):
    student, teacher = random_map(seed, height, width), random_map(seed + 1, height, width)
    loss = haar_weighted_mse(student, teacher, weight, 3 * weight)
    torch.testing.assert_close(loss, 4 * weight * (student - teacher).square().mean(), rtol=1e-5, atol=1e-7)


@few
@given(SEED, EVEN, EVEN, WEIGHT, WEIGHT)
def test_two_weights_need_no_detail_band(seed, height, width, low, high):
    """low cA^2 + high (cH^2 + cV^2 + cD^2) = high |e|^2 + (low - high) cA^2, and its gradient in closed form."""
    student, teacher = random_map(seed, height, width).requires_grad_(), random_map(seed + 1, height, width)
    cell_weight = random_map(seed + 2, height // 2, width // 2, c=1).abs()
    loss = haar_weighted_mse(student, teacher, 3 * low, 3 * high, cell_weight)
    (gradient,) = torch.autograd.grad(loss, student)
    error = cells((student - teacher).detach().double())
    mean = error.mean(-1, keepdim=True)
    m, n_cells = cell_weight.double().unsqueeze(-1), error[..., 0].numel()
    truth = (m * (high * error.square() + (3 * low - high) * mean.square())).sum() / n_cells
    np.testing.assert_allclose(loss.item(), truth.item(), rtol=1e-5)
    expected = 2 * m * (high * error + (3 * low - high) * mean) / n_cells
    torch.testing.assert_close(cells(gradient).double(), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())
