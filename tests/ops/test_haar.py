"""The public ops of every CPU backend against the reference: values, both derivatives, layouts, dtypes, compile."""

import numpy as np
import pytest
import pywt
import torch

from edgekd.ops import (
    HaarBands,
    haar_dwt2,
    haar_dwt2_ref,
    haar_idwt2,
    haar_idwt2_ref,
    haar_weighted_mse,
    haar_weighted_mse_ref,
)
from edgekd.ops import _library as library

# Widths of every tail that a row of 16 lanes can leave, and of rows that share a register.
SIZES = [(1, 1), (2, 6), (7, 9), (12, 10), (13, 20), (20, 13), (6, 40), (9, 48), (34, 66), (5, 130)]
MODES = ["zero", "symmetric", "periodization"]
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


def relative_error(ours, truth):
    return ((ours.double() - truth.double()).abs().max() / truth.double().abs().max().clamp(min=1e-30)).item()


def loss_case(size, dtype=torch.float32, channels=3):
    student = torch.randn(2, channels, *size).to(dtype).requires_grad_()
    teacher = torch.randn(2, channels, *size).to(dtype)
    cell_weight = torch.rand(2, 1, (size[0] + 1) // 2, (size[1] + 1) // 2) + 0.5
    return student, teacher, cell_weight


def true_loss_and_gradient(student, teacher, weights, cell_weight):
    wide = student.detach().double().requires_grad_()
    loss = haar_weighted_mse_ref(wide, teacher.double(), *weights, cell_weight)
    (gradient,) = torch.autograd.grad(loss, wide)
    return loss, gradient


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_transform_and_inverse_are_those_of_pywavelets(backend, size, mode):
    x = torch.randn(2, 3, *size)
    approx, details = pywt.dwt2(x.double().numpy(), "haar", mode=mode)
    bands = haar_dwt2(x, mode, backend)
    for ours, theirs in zip(bands, (approx, *details), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6 * np.abs(theirs).max() + 1e-7)
    torch.testing.assert_close(haar_idwt2(bands, size, backend), x, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_backends_return_the_bits_of_the_reference(backend, size, dtype):
    x = torch.randn(2, 3, *size).to(dtype)
    bands = haar_dwt2(x, "zero", backend)
    for ours, truth in zip(bands, haar_dwt2_ref(x), strict=True):
        assert ours.dtype == dtype
        assert torch.equal(ours, truth)
    assert torch.equal(haar_idwt2(bands, size, backend), haar_idwt2_ref(bands, size))


@pytest.mark.parametrize("special", [float("inf"), float("-inf"), float("nan"), 6e-8, 5.9e-5, 65504.0, 40000.0, -0.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_formats_at_their_ends(backend, dtype, special):
    x = torch.randn(1, 1, 4, 40).to(dtype)
    x[0, 0, 0, ::6] = special
    for ours, truth in zip(haar_dwt2(x, backend=backend), haar_dwt2_ref(x), strict=True):
        torch.testing.assert_close(ours, truth, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("size", SIZES)
def test_loss_and_gradient_against_autograd_in_float64(backend, size, dtype, weighted):
    student, teacher, cell_weight = loss_case(size, dtype)
    cell_weight = cell_weight if weighted else None
    loss = haar_weighted_mse(student, teacher, 0.3, 1.7, cell_weight, backend)
    (gradient,) = torch.autograd.grad(3 * loss, student)
    true_loss, true_gradient = true_loss_and_gradient(student, teacher, (0.3, 1.7), cell_weight)
    assert loss.dtype == torch.float32
    assert relative_error(loss, true_loss) <= 1e-5
    assert gradient.dtype == dtype
    assert relative_error(gradient, 3 * true_gradient) <= ROUNDING[dtype]


def test_gradient_of_the_teacher(backend):
    student, teacher, cell_weight = loss_case((6, 10))
    teacher.requires_grad_()
    loss = haar_weighted_mse(student, teacher, 0.3, 1.7, cell_weight, backend)
    for_student, for_teacher = torch.autograd.grad(loss, (student, teacher))
    assert torch.equal(for_teacher, -for_student)
    alone = haar_weighted_mse(student.detach(), teacher, 0.3, 1.7, cell_weight, backend)
    assert torch.equal(torch.autograd.grad(alone, teacher)[0], for_teacher)


def test_float16_gradient_survives_with_a_loss_scale(backend):
    """The gradient of a mean over 2.6 million cells is below float16's range; the scale must come before rounding."""
    student, teacher, _ = loss_case((80, 80), torch.float16, channels=256)
    (gradient,) = torch.autograd.grad(65536 * haar_weighted_mse(student, teacher, 1.0, 1.0, None, backend), student)
    _, truth = true_loss_and_gradient(student, teacher, (1.0, 1.0), None)
    assert relative_error(gradient, 65536 * truth) <= ROUNDING[torch.float16]
    assert (gradient == 0).float().mean() < 0.01


def test_bitwise_equal_from_run_to_run_and_with_any_number_of_threads(backend):
    student, teacher, cell_weight = loss_case((34, 66), channels=8)

    def run():
        loss = haar_weighted_mse(student, teacher, 0.3, 1.7, cell_weight, backend)
        return loss.item(), *torch.autograd.grad(loss, student)

    loss, gradient = run()
    assert all(again[0] == loss and torch.equal(again[1], gradient) for again in (run() for _ in range(5)))
    if backend == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        again = run()
        torch.set_num_threads(threads)
        assert again[0] == loss
        assert torch.equal(again[1], gradient)


@pytest.mark.parametrize("layout", ["channels_last", "slice", "transposed", "expanded"])
def test_any_layout(backend, layout):
    x = {
        "channels_last": lambda: torch.randn(2, 3, 6, 10).to(memory_format=torch.channels_last),
        "slice": lambda: torch.randn(4, 5, 9, 14)[1:3, 1:4, 2:8, 3:13],
        "transposed": lambda: torch.randn(2, 3, 10, 6).transpose(2, 3),
        "expanded": lambda: torch.randn(1, 3, 6, 10).expand(2, 3, 6, 10),
    }[layout]()
    teacher, cell_weight = torch.randn(2, 3, 10, 6).transpose(2, 3), torch.rand(2, 1, 5, 3).transpose(2, 3)
    for ours, truth in zip(haar_dwt2(x, backend=backend), haar_dwt2_ref(x), strict=True):
        assert torch.equal(ours, truth)
    x.requires_grad_()
    loss = haar_weighted_mse(x, teacher, 0.3, 1.7, cell_weight, backend)
    loss.backward()
    true_loss, gradient = true_loss_and_gradient(x, teacher, (0.3, 1.7), cell_weight)
    assert relative_error(loss, true_loss) <= 1e-5
    assert relative_error(x.grad, gradient) <= 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_first_and_second_derivative_of_the_transform(mode):
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: haar_dwt2(x, mode), x)
    assert torch.autograd.gradgradcheck(lambda x: haar_dwt2(x, mode), x)
    bands = [torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(4)]
    assert torch.autograd.gradcheck(lambda *bands: haar_idwt2(HaarBands(*bands), (5, 6)), bands)
    assert torch.autograd.gradgradcheck(lambda *bands: haar_idwt2(HaarBands(*bands), (5, 6)), bands)


def test_first_and_second_derivative_of_the_loss():
    student, teacher = (torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    cell_weight = torch.rand(1, 1, 3, 3, dtype=torch.float64)

    def loss(student, teacher):
        return haar_weighted_mse(student, teacher, 0.4, 1.3, cell_weight)

    assert torch.autograd.gradcheck(loss, (student, teacher))
    assert torch.autograd.gradgradcheck(loss, (student, teacher))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(5, 6), (6, 5), (7, 33), (1, 1)])
def test_the_adjoint_of_every_backend(backend, size, mode):
    """<analysis x, y> = <x, synthesis y>: what the backward of an odd size must be."""
    x = torch.randn(1, 2, *size)
    bands = library.haar_analysis(x, mode != "zero", backend)
    others = [torch.randn_like(band) for band in bands]
    back = library.haar_synthesis(others, *size, mode != "zero", backend)
    forward = sum((band * other).double().sum() for band, other in zip(bands, others, strict=True))
    torch.testing.assert_close((x * back).double().sum(), forward, rtol=1e-4, atol=1e-5)


def test_backward_twice_through_one_graph(backend):
    student, teacher, _ = loss_case((6, 10))
    loss = haar_weighted_mse(student, teacher, 0.3, 1.7, backend=backend)
    loss.backward(retain_graph=True)
    first = student.grad.clone()
    loss.backward()
    assert torch.equal(student.grad, 2 * first)


def test_operators_obey_the_rules_of_torch_library(backend):
    x, y = torch.randn(1, 2, 5, 6, requires_grad=True), torch.randn(1, 2, 5, 6)
    cell_weight = torch.rand(1, 1, 3, 3)
    bands = [torch.randn(1, 2, 3, 3, requires_grad=True) for _ in range(4)]
    cases = [
        (library.haar_analysis, (x, False, backend)),
        (library.haar_synthesis, (bands, 5, 6, True, backend)),
        (library.haar_weighted_mse, (x, y, cell_weight, [0.3, 1.7], True, backend)),
        (library.haar_weighted_mse_gradient, (torch.ones(()), x, y, None, [0.3, 1.7], backend)),
    ]
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    for operator, arguments in cases:
        assert set(torch.library.opcheck(operator, arguments, test_utils=tests).values()) == {"SUCCESS"}


@pytest.mark.filterwarnings("ignore")  # the compiler's own warnings
def test_compiles_into_one_graph(backend):
    student, teacher, cell_weight = loss_case((5, 6))

    def step(student, teacher, cell_weight):
        restored = haar_idwt2(haar_dwt2(student * 2, backend=backend), (5, 6), backend)
        return 3 * haar_weighted_mse(restored, teacher, 0.3, 1.7, cell_weight, backend)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    ours, truth = compiled(student, teacher, cell_weight), step(student, teacher, cell_weight)
    torch.testing.assert_close(ours, truth)
    torch.testing.assert_close(torch.autograd.grad(ours, student), torch.autograd.grad(truth, student))


def test_autocast_changes_nothing(backend):
    student, teacher, cell_weight = loss_case((6, 10))
    plain = haar_weighted_mse(student, teacher, 0.3, 1.7, cell_weight, backend)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(haar_weighted_mse(student, teacher, 0.3, 1.7, cell_weight, backend), plain)
        mixed = haar_weighted_mse(student.bfloat16(), teacher, 0.3, 1.7, cell_weight, backend)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, haar_weighted_mse(student.bfloat16().float(), teacher, 0.3, 1.7, cell_weight, backend))


def test_non_finite_features_go_through(backend):
    student, teacher, _ = loss_case((6, 10))
    with torch.no_grad():
        student[0, 0, 0, 0] = float("nan")
    assert haar_weighted_mse(student, teacher, 0.3, 1.7, backend=backend).isnan()
