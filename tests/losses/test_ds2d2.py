"""DS2D2: the spatial weight, both streams and the identities between them, on sizes to be worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekd.losses.ds2d2 import band_grid, disw, explicit_fft_loss, explicit_loss, high_frequency
from edgekd.losses.implicit import (
    angle_implicit_loss,
    decode_distances,
    dense_implicit_loss,
)

NO_BOX = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)


def test_weight_without_objects_is_one():
    assert disw(*NO_BOX, 2, (3, 5)).equal(torch.ones(2, 1, 3, 5))


def test_weight_by_hand():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]])
    weight = disw(boxes, torch.tensor([0, 0, 1]), 2, (4, 4))
    expected = torch.ones(4, 4)
    expected[:2, :2] += 1 / 4  # the first box covers four cells
    expected[1, 1] += 1.0  # the second one; overlaps add up
    torch.testing.assert_close(weight[0, 0], expected)
    torch.testing.assert_close(weight[1, 0], torch.full((4, 4), 1 + 1 / 16))


def test_faithful_weight_is_the_published_loop():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.9, (20, 2))
    boxes = np.concatenate((corner, np.minimum(corner + rng.uniform(0.01, 0.5, (20, 2)), 1.0)), 1).astype(np.float32)
    expected = np.ones((13, 11), np.float16)
    for x1, y1, x2, y2 in boxes.astype(np.float64):
        left, top = max(0, int(np.floor(x1 * 11))), max(0, int(np.floor(y1 * 13)))
        right, bottom = min(10, int(np.ceil(x2 * 11))), min(12, int(np.ceil(y2 * 13)))
        window = expected[top : bottom + 1, left : right + 1]
        share = np.float32(1 / ((right - left + 1) * (bottom - top + 1)))
        window[:] = (window.astype(np.float32) + share).astype(np.float16)
    weight = disw(torch.from_numpy(boxes), torch.zeros(20), 1, (13, 11), "faithful")
    torch.testing.assert_close(weight[0, 0], torch.from_numpy(expected).float(), rtol=0, atol=0)


def test_faithful_weight_rounds_after_every_box():
    """Twenty boxes of 45x45 cells: each 1/2025 rounds up to 1/1024, and so does each of the twenty sums."""
    boxes = torch.tensor([[0.0, 0.0, 43.5 / 64, 43.5 / 64]]).repeat(20, 1)
    faithful = disw(boxes, torch.zeros(20), 1, (64, 64), "faithful")
    assert (faithful.double() - 1).sum().item() == pytest.approx(20 * 2025 / 1024, abs=0.1)
    assert (disw(boxes, torch.zeros(20), 1, (64, 64)).double() - 1).sum().item() == pytest.approx(20, abs=0.01)


def test_faithful_weight_forgets_large_objects():
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    assert disw(whole, torch.zeros(1), 1, (64, 64), "faithful").sum().item() == 64 * 64
    assert disw(whole, torch.zeros(1), 1, (64, 64)).double().sum().item() == pytest.approx(64 * 64 + 1, abs=1e-3)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.integers(-20, 120)] * 4), max_size=12),
    st.integers(1, 23),
    st.integers(1, 23),
)
def test_every_object_has_mass_one(corners, height, width):
    boxes = torch.tensor([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]).view(-1, 4) / 100
    weight = disw(boxes, torch.zeros(len(corners)), 1, (height, width))
    assert weight.min() >= 1.0
    assert (weight.double() - 1).sum().item() == pytest.approx(len(corners), abs=1e-3)


@pytest.mark.parametrize("size", [(2, 2), (8, 6)])
def test_explicit_stream_is_plain_mse_when_unweighted(size):
    student, teacher = torch.randn(2, 3, *size), torch.randn(2, 3, *size)
    value = explicit_loss([student], [teacher], 0.25, 0.75, [None])
    torch.testing.assert_close(value, (student - teacher).square().mean())


def test_explicit_stream_of_two_by_two():
    student = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]]])  # cA 5.5, cH -2.5, cV -1.5, cD 0.5
    teacher = torch.zeros(1, 1, 2, 2)
    weight = torch.full((1, 1, 1, 1), 2.0)
    value = explicit_loss([student], [teacher], 1.0, 3.0, [weight]).item()
    assert value == pytest.approx(2 * 5.5**2 + 2 * (2.5**2 + 1.5**2 + 0.5**2))


@pytest.mark.parametrize("side", [13, 19, 21])
def test_explicit_stream_takes_odd_maps(side):
    student = torch.randn(1, 2, side, side, requires_grad=True)
    grid = band_grid((side, side))
    weight = disw(torch.tensor([[0.1, 0.1, 0.9, 0.9]]), torch.zeros(1), 1, grid)
    explicit_loss([student], [torch.randn(1, 2, side, side)], 1.0, 1.0, [weight]).backward()
    assert weight.shape[2:] == grid and student.grad.abs().min() > 0


def test_fourier_split_keeps_the_energy():
    student, teacher = torch.randn(2, 3, 9, 12), torch.randn(2, 3, 9, 12)
    torch.testing.assert_close(
        explicit_fft_loss([student], [teacher], 1.0, 1.0), (student - teacher).square().mean(), rtol=1e-4, atol=1e-5
    )
    constant = torch.ones(1, 1, 4, 4)
    assert explicit_fft_loss([constant], [0 * constant], 0.0, 1.0).item() == pytest.approx(0.0, abs=1e-12)


def test_fourier_split_lies_at_a_quarter_of_a_cycle_per_cell():
    """A wave of four cells is low, the last one that is; a wave of three is high."""
    x = torch.arange(12.0)
    for period, is_low in ((4, True), (3, False), (12, True)):
        wave = torch.cos(2 * torch.pi * x / period).expand(1, 1, 12, 12)
        low = explicit_fft_loss([wave], [0 * wave], 1.0, 0.0).item()
        assert low == pytest.approx(0.5 if is_low else 0.0, abs=1e-6), period


def test_high_frequencies_are_resampled_bilinearly():
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, :2, 0] = 2.0  # the only block with detail: (3 2 - 0 - 2 - 0) / 2 = 2
    rows = torch.tensor([1.0, 0.75, 0.25, 0.0])  # bilinear weights of the first of two cells
    torch.testing.assert_close(high_frequency(maps)[0, 0], 2.0 * rows[:, None] * rows[None, :])


def test_high_frequency_of_two_by_two():
    maps = torch.tensor([[[[4.0, 1.0], [2.0, 3.0]]]])  # (3a - b - c - d) / 2
    torch.testing.assert_close(high_frequency(maps), torch.full((1, 1, 2, 2), 3.0))
    assert high_frequency(torch.ones(1, 2, 6, 6)).abs().max() == 0


def test_distances_are_decoded_from_the_anchor():
    plain = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    box = decode_distances(plain, torch.tensor([[10.0, 20.0]]), torch.tensor([8.0]))
    assert box[0, 0].tolist() == [72.0, 144.0, 104.0, 192.0]
    sure = torch.full((1, 4, 3, 1), -40.0)
    sure[:, :, 2] = 40.0  # all four distributions sit on bin 2
    assert decode_distances(sure.view(1, 12, 1), torch.zeros(1, 2), torch.ones(1))[0, 0].tolist() == [-2, -2, 2, 2]


def test_dense_implicit_loss_by_hand():
    student, teacher = torch.tensor([[0.0]]), torch.tensor([[40.0]])  # p_s 1/2, p_t 1
    student_box, teacher_box = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 4.0]])
    value = dense_implicit_loss(student, teacher, student_box, teacher_box).item()
    assert value == pytest.approx(0.5 * np.log(2.0) + 0.5, rel=1e-5)  # GIoU 1/2
    assert dense_implicit_loss(teacher, teacher, student_box, student_box).item() == pytest.approx(0.0, abs=1e-6)


def test_boxes_count_as_much_as_the_teacher_is_sure():
    logits = torch.tensor([[40.0], [-40.0]])  # sure of the first anchor, sure that the second is nothing
    box, other = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[0.0, 0.0, 2.0, 4.0]])
    second = dense_implicit_loss(logits, logits, torch.cat((box, box)), torch.cat((box, other))).item()
    first = dense_implicit_loss(logits, logits, torch.cat((box, box)), torch.cat((other, box))).item()
    assert second == pytest.approx(0.0, abs=1e-6) and first == pytest.approx(0.5, abs=1e-6)


def test_angles_are_equal_after_half_a_turn():
    zero, one = torch.zeros(1), torch.ones(1)
    assert angle_implicit_loss(zero, zero + torch.pi, one).item() == pytest.approx(0.0, abs=1e-6)
    assert angle_implicit_loss(zero, zero + torch.pi / 2, one).item() == pytest.approx(1.0)


def test_retinanet_head_as_full_frequency_amplifier():
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.retinanet import RetinaNetHead

    from edgekd.losses.feature import align_grid

    backbones = {name: _fpn(name) for name in ("resnet18", "resnet101")}
    head = RetinaNetHead(256, 9, 20).eval().requires_grad_(False)
    sizes = tuple((x, int(x * 1.26), int(x * 1.59)) for x in (32, 64, 128, 256, 512))
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    images = torch.rand(1, 3, 64, 64)
    student = list(backbones["resnet18"](images).values())
    with torch.no_grad():
        teacher = list(backbones["resnet101"](images).values())
    assert [tuple(m.shape) for m in student] == [tuple(m.shape) for m in teacher]
    teacher = [align_grid(t, s.shape[2:]) for s, t in zip(student, teacher, strict=True)]
    boxes = anchors(ImageList(images, [(64, 64)]), student)[0]
    ours, theirs = head(student), head(teacher)
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    loss = dense_implicit_loss(
        ours["cls_logits"][0],
        theirs["cls_logits"][0],
        coder.decode_single(ours["bbox_regression"][0], boxes),
        coder.decode_single(theirs["bbox_regression"][0], boxes),
    )
    loss.backward()
    _assert_student_alone_learns(backbones["resnet18"], head)


def _fpn(name: str) -> nn.Module:
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name=name, weights=None, trainable_layers=5)


def _assert_student_alone_learns(student: nn.Module, head: nn.Module) -> None:
    assert all(p.grad is None for p in head.parameters())
    assert student.body.layer4[0].conv1.weight.grad.abs().sum() > 0
