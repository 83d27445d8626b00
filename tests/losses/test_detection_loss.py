"""L_det against numbers worked out by hand, against torchvision, and its limits."""

import math

import pytest
import torch
from torchvision.ops import complete_box_iou_loss

from edgekd.losses.detection import (
    DetectionWeights,
    best_class_logit,
    box_loss,
    ciou,
    classification_loss,
    detection_loss,
    objectness_loss,
    smooth_labels,
)


def test_labels_move_towards_one_half():
    assert smooth_labels(torch.tensor([0.0, 1.0]), 0.2).tolist() == pytest.approx([0.1, 0.9])


def test_classification_of_two_by_two():
    logits = torch.tensor([[0.0, math.log(3.0)], [0.0, 0.0]])  # p = 1/2 3/4 / 1/2 1/2
    targets = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    expected = (3 * math.log(2.0) + math.log(4.0 / 3.0)) / 4
    assert classification_loss(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_smoothing_costs_where_the_head_is_sure():
    logits, targets = torch.tensor([[10.0]]), torch.tensor([[1.0]])
    assert classification_loss(logits, targets, 0.1) > classification_loss(logits, targets) + 0.4


def test_objectness_of_an_even_score_is_log_two():
    assert objectness_loss(torch.zeros(3), torch.tensor([0.0, 1.0, 0.5])).item() == pytest.approx(math.log(2.0))


def test_objectness_of_a_head_without_one_is_its_best_class():
    assert best_class_logit(torch.tensor([[1.0, -2.0], [-3.0, 4.0]])).tolist() == [1.0, 4.0]


def test_ciou_by_hand():
    # IoU 4/28, centres (2, 2) apart, enclosing box 6x6, same aspect: 1/7 - 8/72
    boxes, targets = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 2.0, 6.0, 6.0]])
    assert ciou(boxes, targets).item() == pytest.approx(1 / 7 - 1 / 9, abs=1e-6)


def test_ciou_aspect_term_by_hand():
    # concentric 4x2 and 2x4: IoU 4/12, rho 0, v = 4/pi^2 (atan(1/2) - atan(2))^2
    boxes, targets = torch.tensor([[0.0, 1.0, 4.0, 3.0]]), torch.tensor([[1.0, 0.0, 3.0, 4.0]])
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(2.0)) ** 2
    assert ciou(boxes, targets).item() == pytest.approx(1 / 3 - v * v / (1 - 1 / 3 + v), abs=1e-5)


def test_ciou_agrees_with_torchvision():
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(64, 2, 2, 2, generator=generator) * 50
    low, high = corners.amin(2), corners.amax(2) + 1
    boxes, targets = torch.cat((low[:, 0], high[:, 0]), 1), torch.cat((low[:, 1], high[:, 1]), 1)
    torch.testing.assert_close(1 - ciou(boxes, targets), complete_box_iou_loss(boxes, targets), rtol=1e-4, atol=1e-4)


def test_ciou_has_the_gradient_of_torchvision():
    """The weight of the aspect term carries no gradient."""
    boxes = torch.tensor([[0.0, 1.0, 4.0, 3.0], [0.0, 0.0, 5.0, 2.0]])
    targets = torch.tensor([[1.0, 0.0, 3.0, 4.0], [1.0, 1.0, 3.0, 6.0]])
    gradients = []
    for loss in (lambda a, b: 1 - ciou(a, b), complete_box_iou_loss):
        given = boxes.clone().requires_grad_()
        loss(given, targets).sum().backward()
        gradients.append(given.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)


def test_no_box_costs_nothing_and_keeps_the_graph():
    boxes = torch.zeros(0, 4, requires_grad=True)
    loss = box_loss(boxes, torch.zeros(0, 4))
    loss.backward()
    assert loss.item() == 0.0 and boxes.grad is not None


def test_betas_weigh_the_three_terms():
    one = torch.tensor(1.0)
    assert detection_loss(one, 10 * one, 100 * one, DetectionWeights(1.0, 2.0, 3.0)).item() == 321.0
