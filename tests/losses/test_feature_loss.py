"""L_feat, L_att and L_kl on maps of 2x2 whose answers are worked out by hand."""

import math

import pytest
import torch

from edgekd.errors import InputError
from edgekd.losses.attention import attention_loss, spatial_attention, total_variation
from edgekd.losses.feature import align_grid, cosine_distance, feature_loss, mse_distance, squared_norm_distance
from edgekd.losses.logits import binary_kl, quality_focal, softmax_kl

STUDENT = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
TEACHER = torch.tensor([[[[1.0, 0.0], [3.0, 8.0]]]])


def test_mse_of_two_by_two():
    assert mse_distance(STUDENT, TEACHER).item() == (0 + 4 + 0 + 16) / 4


def test_cosine_of_two_by_two():
    # two channels; the four positions meet at 0, 90, 180 and 45 degrees: mean of 0, 1, 2, 1 - sqrt(1/2)
    student = torch.tensor([[[[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    teacher = torch.tensor([[[[2.0, 0.0], [-1.0, 3.0]], [[0.0, 5.0], [0.0, 3.0]]]])
    assert cosine_distance(student, teacher).item() == pytest.approx((0 + 1 + 2 + 1 - math.sqrt(0.5)) / 4, abs=1e-6)


def test_levels_are_summed_with_their_weights():
    assert feature_loss([STUDENT, STUDENT], [TEACHER, STUDENT], mse_distance, [0.5, 7.0]).item() == 2.5


@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 5)])
def test_teacher_is_resampled_to_the_students_grid(size):
    constant = torch.full((2, 3, *size), 2.5)
    assert feature_loss([torch.full((2, 3, 2, 2), 2.5)], [constant], mse_distance).item() == pytest.approx(
        0.0, abs=1e-12
    )


def test_shrinking_keeps_the_mean():
    assert align_grid(STUDENT, (1, 1)).item() == pytest.approx(2.5)


def test_only_the_student_gets_a_gradient():
    student, teacher = STUDENT.clone().requires_grad_(), TEACHER.clone()
    feature_loss([student], [teacher], mse_distance).backward()
    torch.testing.assert_close(student.grad, 2 * (STUDENT - TEACHER) / 4)


def test_channels_and_levels_must_agree():
    with pytest.raises(InputError, match="1 channels and the teacher's 3"):
        feature_loss([STUDENT], [TEACHER.repeat(1, 3, 1, 1)])
    with pytest.raises(InputError, match="2 student maps"):
        feature_loss([STUDENT, STUDENT], [TEACHER])


def test_attention_is_the_channel_energy_over_its_sum():
    maps = torch.tensor([[[[1.0, 0.0], [0.0, 2.0]], [[2.0, 0.0], [1.0, 0.0]]]])  # energies 5 0 / 1 4
    torch.testing.assert_close(spatial_attention(maps), torch.tensor([[[[0.5, 0.0], [0.1, 0.4]]]]))


def test_attention_loss_by_hand_and_its_limit():
    left, right = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 3.0]]]])
    assert attention_loss([left], [right]).item() == pytest.approx(2.0)
    assert attention_loss([left, left], [5 * left, right]).item() == pytest.approx(2.0)
    assert attention_loss([left], [right], total_variation).item() == pytest.approx(1.0)
    assert spatial_attention(torch.zeros(1, 2, 2, 2)).sum().item() == 0.0


def test_both_distances_of_attention_by_hand():
    student = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]]]])  # energies 1 0 / 0 1
    teacher = torch.tensor([[[[2.0, 0.0], [3.0**0.5, 3.0]]]])  # energies 4 0 / 3 9
    # normalised to length: (1, 0, 0, 1) / sqrt(2) and (4, 0, 3, 9) / sqrt(106); to sum: 1/2 0 0 1/2 and 1/4 0 3/16 9/16
    expected = 2 - 2 * 13 / math.sqrt(2 * 106)
    assert attention_loss([student], [teacher]).item() == pytest.approx(expected, abs=1e-6)
    by_sum = attention_loss([student], [teacher], total_variation).item()
    assert by_sum == pytest.approx((1 / 4 + 3 / 16 + 1 / 16) / 2, abs=1e-6)


def test_mse_with_and_without_the_channels():
    student, teacher = torch.zeros(1, 3, 1, 2), torch.ones(1, 3, 1, 2)
    assert mse_distance(student, teacher).item() == 1.0
    assert squared_norm_distance(student, teacher).item() == 3.0


def test_shrinking_is_filtered():
    """Cells between the samples count: without a filter a fine pattern would alias into a constant."""
    stripes = torch.tensor([1.0, 0.0, 0.0, 0.0] * 4).expand(1, 1, 16, 16)
    shrunk = align_grid(stripes, (4, 4))[..., 1:-1, 1:-1]
    torch.testing.assert_close(shrunk, torch.full_like(shrunk, 0.25), atol=0.05, rtol=0)


def test_softmax_kl_by_hand():
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3.0), 0.0]])  # at T = 2: 1/2 1/2 and 3/4 1/4
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert softmax_kl(student, teacher, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_binary_kl_by_hand():
    student, teacher = torch.zeros(2, 1), torch.tensor([[math.log(3.0)], [0.0]])
    one = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert binary_kl(student, teacher).item() == pytest.approx(one / 2, rel=1e-5)
    assert binary_kl(student, teacher, weight=torch.tensor([3.0, 1.0])).item() == pytest.approx(one * 0.75, rel=1e-5)
    # at T = 2 the logits are halved and the loss is four times as large: p_T = sigmoid(log(3) / 2)
    p = 1 / (1 + 3**-0.5)
    warm = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert binary_kl(student, teacher, 2.0).item() == pytest.approx(warm / 2, rel=1e-5)
    assert binary_kl(teacher, teacher, 3.0).item() == pytest.approx(0.0, abs=1e-7)


def test_quality_focal_by_hand():
    value = quality_focal(torch.zeros(1), torch.tensor([math.log(3.0)])).item()
    assert value == pytest.approx(0.25 * math.log(2.0), rel=1e-5)
