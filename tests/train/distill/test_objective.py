"""The terms of an objective: what they read of a batch, and that they vanish when the student equals the teacher."""

import math

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")

from ultralytics.nn.modules.head import OBB, Detect

from edgekd.errors import TrainingError
from edgekd.losses.attention import ATTENTION_DISTANCES, attention_loss
from edgekd.losses.feature import align_grid
from edgekd.losses.logits import binary_kl, softmax_kl
from edgekd.models.teachers import Teacher, predict
from edgekd.train.distill.objective import BatchView, Objective, anchor_points, enclosing_boxes
from edgekd.train.distill.recipes import Recipe

CHANNELS = (8, 8, 8)


def make_view(maps, n_boxes=1, recipe=None, projected=None):
    batch = {
        "img": torch.rand(1, 3, 64, 64),
        "bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.25]])[:n_boxes],
        "batch_idx": torch.zeros(n_boxes),
    }
    return BatchView(batch, maps, projected or maps, torch.zeros(1, 2, 84), recipe or Recipe())


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
    perfect, other = objective.losses(make_view(theirs)), objective.losses(make_view(random_maps(1)))
    for name in objective.lambdas:
        assert perfect[name].item() == pytest.approx(0.0, abs=1e-4), name
        assert other[name] > perfect[name] + 1e-3, name


def test_the_angle_of_oriented_heads_counts():
    head = OBB(nc=2, ne=1, ch=CHANNELS)
    theirs = random_maps(0)
    objective = Objective("ds2d2", Recipe(lambda_explicit=0.0), make_teacher(head, theirs), ("a", "b"))
    before = objective.losses(make_view(random_maps(1)))["full"]
    with torch.no_grad():
        for branch in head.cv4:
            branch[-1].weight.mul_(50)
    assert objective.losses(make_view(random_maps(1)))["full"] > before + 1e-3


def test_objects_weigh_in_the_explicit_stream():
    theirs = random_maps(0)
    head = Detect(nc=2, ch=CHANNELS)
    objective = Objective("ds2d2", Recipe(lambda_full=0.0, lambda_high=0.0), make_teacher(head, theirs), ("a", "b"))
    ours = random_maps(1)
    assert objective.losses(make_view(ours))["explicit"] > objective.losses(make_view(ours, n_boxes=0))["explicit"]


def single(recipe, head, theirs, method="feature"):
    """The value of a method's only term as a function of a view."""
    teacher = make_teacher(head, theirs)
    objective = Objective(method, recipe, teacher, ("a", "b"))
    (name,) = objective.lambdas
    return lambda view: objective.losses(view)[name]


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = Detect(nc=2, ch=CHANNELS).eval()
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    return head


def test_attention_is_that_of_the_projected_student_and_squared_unless_named(head):
    theirs, projected = random_maps(0), random_maps(1)
    only = {"lambda_feature": 0.0, "lambda_logits": 0.0}
    for name, recipe in (("squared", Recipe(**only)), ("total_variation", Recipe(attention="total_variation", **only))):
        view = make_view(random_maps(2), recipe=recipe, projected=projected)
        expected = attention_loss(projected, theirs, ATTENTION_DISTANCES[name])
        torch.testing.assert_close(single(recipe, head, theirs)(view), expected)
    assert Recipe().attention == "squared"


def test_logits_by_independent_or_exclusive_classes(head):
    only, maps = {"lambda_feature": 0.0, "lambda_attention": 0.0}, random_maps(0)
    values = []
    for kind in ("binary", "softmax"):
        recipe = Recipe(logits=kind, **only)
        view = make_view(random_maps(1), recipe=recipe)
        theirs = predict(head, maps)["scores"].transpose(1, 2)
        expected = {"binary": binary_kl, "softmax": softmax_kl}[kind](
            torch.zeros(1, 84, 2), theirs, recipe.temperature, theirs.amax(-1).sigmoid()
        )
        values.append(single(recipe, head, maps)(view))
        torch.testing.assert_close(values[-1], expected)
    assert values[0] != values[1]


def test_either_side_is_resampled(head):
    fine = [torch.randn(1, 8, 2 * size, 2 * size) for size in (8, 4, 2)]
    only = {"lambda_attention": 0.0, "lambda_logits": 0.0, "distance": "mse"}
    ours = random_maps(1)
    for grid in ("student", "teacher"):
        recipe = Recipe(grid=grid, **only)
        pairs = [
            (s, align_grid(t, s.shape[2:])) if grid == "student" else (align_grid(s, t.shape[2:]), t)
            for s, t in zip(ours, fine, strict=True)
        ]
        expected = sum((s - t).square().mean() for s, t in pairs)
        torch.testing.assert_close(single(recipe, head, fine)(make_view(ours, recipe=recipe)), expected)
    logits = Recipe(grid="teacher", lambda_feature=0.0, lambda_attention=0.0)
    with pytest.raises(TrainingError, match="84 anchors and the teacher 336"):
        single(logits, head, fine)(make_view(ours, recipe=logits))


def test_the_implicit_stream_reads_raw_maps_of_equal_width_and_projected_ones_otherwise(head):
    recipe = Recipe(lambda_explicit=0.0, lambda_high=0.0)
    theirs, projected = random_maps(0), random_maps(1)
    loss = single(recipe, head, theirs, "ds2d2")
    narrow = [torch.randn(1, 4, size, size) for size in (8, 4, 2)]
    assert loss(make_view(theirs, recipe=recipe, projected=projected)).item() == pytest.approx(0.0, abs=1e-4)
    assert loss(make_view(narrow, recipe=recipe, projected=theirs)).item() == pytest.approx(0.0, abs=1e-4)
    assert loss(make_view(narrow, recipe=recipe, projected=projected)).item() > 1e-3


def test_nothing_is_left_out_in_silence(head):
    teacher = make_teacher(head, random_maps(0))
    teacher.amplifier = None
    objective = Objective("ds2d2", Recipe(), teacher, ("a", "b"))
    assert list(objective.lambdas) == ["explicit", "full"] and "left out: high" in objective.remarks[0]
    with pytest.raises(TrainingError, match="lambda_high 1 and no amplifier was given: edgekd distill train-amplifier"):
        Objective("ds2d2", Recipe(lambda_high=1.0), teacher, ("a", "b"))
    teacher.head = None
    with pytest.raises(TrainingError, match="lambda_full 0.5 and the teacher fixed has no detection head"):
        Objective("ds2d2", Recipe(lambda_full=0.5), teacher, ("a", "b"))
    alone = Objective("ds2d2", Recipe(), teacher, ("a", "b"))
    assert list(alone.lambdas) == ["explicit"] and "explicit is the only term" in alone.remarks[-1]


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
