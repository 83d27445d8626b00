"""The checks before the first epoch find every silent mistake that they are there for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")

from edgekd.errors import TrainingError
from edgekd.models.levels import find_levels
from edgekd.models.teachers import module_teacher
from edgekd.train.distill.balance import GradientBalance
from edgekd.train.distill.objective import Objective
from edgekd.train.distill.preflight import check_before_training
from edgekd.train.distill.recipes import Recipe
from edgekd.train.distill.student import DistilledDetector

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class Pyramid(nn.Module):
    """A stand-in teacher: pooled pictures in four channels at strides 8, 16 and 32."""

    def __init__(self, crop: int = 0) -> None:
        super().__init__()
        self.mix = nn.Conv2d(3, 4, 1)
        self.crop = crop

    def forward(self, images):
        maps = [nn.functional.avg_pool2d(self.mix(images), stride) for stride in (8, 16, 32)]
        return [m[:, :, :, : m.shape[3] - self.crop] for m in maps]


def build(network=None, method="feature", **recipe):
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    student = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    student.args = get_cfg()
    chosen = Recipe(**recipe)
    objective = Objective(method, chosen, module_teacher(network or Pyramid(), (4, 4, 4)), ("red", "blue"))
    levels = find_levels(student, chosen.levels)
    model = DistilledDetector(student, levels, objective, GradientBalance(objective.lambdas, chosen.target_share))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = {
        "img": torch.rand(2, 3, 128, 128),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
        "cls": torch.zeros(1, 1),
        "batch_idx": torch.zeros(1),
    }
    return SimpleNamespace(model=model.train(), batch=batch, optimizer=optimizer, ema=model)


def check(parts):
    return check_before_training(parts.model, parts.batch, parts.optimizer, parts.ema)


@pytest.mark.parametrize("method", ["feature", "ds2d2"])
def test_a_sound_run_passes_and_is_left_as_it_was(method):
    parts = build(method=method)
    before = {name: tensor.clone() for name, tensor in parts.model.state_dict().items()}
    weights = dict(parts.model.balance.weights)
    lines = check(parts)
    assert any("frozen, outside the student" in line for line in lines)
    assert any("P3 16x16, P4 8x8, P5 4x4" in line for line in lines)
    for name, tensor in parts.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert parts.model.balance.weights == weights
    assert all(p.grad is None for p in parts.model.parameters())


@pytest.mark.parametrize(("factor", "sentence"), [(255.0, "expected 0 to 1"), (1 / 255, "expected 0 to 1")])
def test_pictures_of_another_range(factor, sentence):
    parts = build()
    parts.batch["img"] *= factor
    with pytest.raises(TrainingError, match=sentence):
        check(parts)


def test_a_teacher_that_learns():
    parts = build()
    parts.model.objective.teacher.network.requires_grad_(True)
    with pytest.raises(TrainingError, match="trainable parameters"):
        check(parts)


def test_a_teacher_in_training_mode():
    parts = build()
    parts.model.objective.teacher.network.train()
    with pytest.raises(TrainingError, match="training mode"):
        check(parts)


def test_a_teacher_inside_the_student():
    parts = build()
    parts.model.stowaway = parts.model.objective.teacher.network
    with pytest.raises(TrainingError, match="a part of the student"):
        check(parts)


def test_a_teacher_that_crops():
    with pytest.raises(TrainingError, match="do not lie over each other"):
        check(build(Pyramid(crop=1)))


def test_a_teacher_of_other_channels():
    parts = build()
    parts.model.objective.teacher.channels = (8, 4, 4)
    with pytest.raises(TrainingError, match=r"expected \(N, 8, h, w\)"):
        check(parts)


def test_a_projector_that_nobody_optimises_or_averages():
    parts = build()
    parts.optimizer = torch.optim.SGD(parts.model.student_model.parameters(), lr=0.1)
    with pytest.raises(TrainingError, match="not in the optimizer"):
        check(parts)
    parts = build()
    parts.ema = parts.model.student_model
    with pytest.raises(TrainingError, match="not in the moving average"):
        check(parts)


def test_a_loss_that_is_dead_or_not_finite():
    parts = build(lambda_attention=0.0)
    for parameter in parts.model.projector.parameters():
        nn.init.zeros_(parameter)  # a zero projector gives the student a zero gradient
    with pytest.raises(TrainingError, match="gives the student no gradient"):
        check(parts)
    parts = build()
    parts.model.objective.teacher.network.mix.weight.data.fill_(float("inf"))
    with pytest.raises(TrainingError, match="is nan on the first batch"):
        check(parts)


def test_a_vit_has_no_implicit_stream_and_a_detector_needs_the_classes():
    parts = build(method="ds2d2")
    assert parts.model.term_names == ("explicit",)
    with pytest.raises(TrainingError, match="has no term left"):
        build(method="ds2d2", lambda_explicit=0.0)
    teacher = module_teacher(Pyramid(), (4, 4, 4))
    teacher.head, teacher.class_names = nn.Identity(), ("person",)
    with pytest.raises(TrainingError, match="knows 1 classes and the data 2"):
        Objective("feature", Recipe(), teacher, ("red", "blue"))


def test_every_level_gets_a_gradient_from_the_teacher():
    parts = build(method="ds2d2", spectrum="fourier")
    losses, items = parts.model.loss(parts.batch)
    losses[-1].backward()
    assert items["explicit_loss"] > 0
    for level in parts.model.levels:
        layer = parts.model.student_model.model[level.layer]
        assert max(p.grad.abs().max() for p in layer.parameters()) > 0
