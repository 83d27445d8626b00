"""The terms of an objective: what they read of a batch, and that they vanish when the student equals the teacher."""

import math

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")

from ultralytics.nn.modules.head import OBB, Detect

from edgekd.models.teachers import Teacher
from edgekd.train.distill.objective import BatchView, Objective, anchor_points, enclosing_boxes
from edgekd.train.distill.recipes import Recipe

CHANNELS = (8, 8, 8)


def make_view(maps, n_boxes=1):
    batch = {
        "img": torch.rand(1, 3, 64, 64),
        "bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.25]])[:n_boxes],
        "batch_idx": torch.zeros(n_boxes),
    }
    return BatchView(batch, maps, maps, torch.zeros(1, 2, 84))


def make_teacher(head: nn.Module, maps) -> Teacher:
    """A teacher that shows the same maps whatever it is shown."""
    return Teacher(
        "fixed", nn.Identity(), lambda _: maps, CHANNELS, head, ("a", "b"), (8.0, 16.0, 32.0), amplifier=head
    )


def random_maps(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 8, size, size, generator=generator) for size in (8, 4, 2)]


@pytest.mark.parametrize("head", [Detect(nc=2, ch=CHANNELS), OBB(nc=2, ne=1, ch=CHANNELS)], ids=["upright", "oriented"])
def test_both_streams_vanish_for_a_perfect_student(head):
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    theirs = random_maps(0)
    objective = Objective("ds2d2", Recipe(), make_teacher(head, theirs), ("a", "b"))
    assert objective.lambdas.keys() == {"explicit", "full", "high"}
    perfect, other = objective.terms(make_view(theirs)), objective.terms(make_view(random_maps(1)))
    for name in objective.lambdas:
        assert perfect[name].item() == pytest.approx(0.0, abs=1e-4), name
        assert other[name] > perfect[name] + 1e-3, name


def test_the_angle_of_oriented_heads_counts():
    head = OBB(nc=2, ne=1, ch=CHANNELS)
    theirs = random_maps(0)
    objective = Objective("ds2d2", Recipe(lambda_explicit=0.0), make_teacher(head, theirs), ("a", "b"))
    before = objective.terms(make_view(random_maps(1)))["full"]
    with torch.no_grad():
        for branch in head.cv4:
            branch[-1].weight.mul_(50)
    assert objective.terms(make_view(random_maps(1)))["full"] > before + 1e-3


def test_objects_weigh_in_the_explicit_stream():
    theirs = random_maps(0)
    head = Detect(nc=2, ch=CHANNELS)
    objective = Objective("ds2d2", Recipe(lambda_full=0.0, lambda_high=0.0), make_teacher(head, theirs), ("a", "b"))
    ours = random_maps(1)
    assert objective.terms(make_view(ours))["explicit"] > objective.terms(make_view(ours, n_boxes=0))["explicit"]


def test_anchor_points_by_hand():
    points, strides = anchor_points([torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 1, 1)], (8.0, 16.0))
    assert points.tolist() == [[0.5, 0.5], [1.5, 0.5], [0.5, 1.5], [1.5, 1.5], [0.5, 0.5]]
    assert strides.tolist() == [8.0] * 4 + [16.0]


def test_enclosing_boxes_by_hand():
    upright = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    expected = torch.tensor([[0.4, 0.3, 0.6, 0.7]])
    torch.testing.assert_close(enclosing_boxes(upright), expected)
    turned = torch.tensor([[0.5, 0.5, 0.4, 0.2, math.pi / 2], [0.5, 0.5, 0.2, 0.2, math.pi / 4]])
    half = 0.1 * math.sqrt(2)
    slanted = torch.tensor([[0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half]])
    torch.testing.assert_close(enclosing_boxes(turned), torch.cat((expected, slanted)))
    assert enclosing_boxes(torch.zeros(0, 4)).shape == (0, 4)
