"""One step of a distilled student: how its losses add up, in which precision, and what its projectors begin with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("ultralytics")

from edgekd.losses.ds2d2 import high_frequency
from edgekd.models.levels import find_levels
from edgekd.models.teachers import module_teacher
from edgekd.train.distill.amplifier import HighFrequencyInput
from edgekd.train.distill.balance import GradientBalance
from edgekd.train.distill.objective import Objective
from edgekd.train.distill.recipes import Recipe
from edgekd.train.distill.student import DistilledDetector, make_projector

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class Pyramid(nn.Module):
    """A stand-in teacher: pooled pictures at strides 8, 16 and 32."""

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [nn.functional.avg_pool2d(images, stride) for stride in (8, 16, 32)]


@pytest.fixture
def model() -> DistilledDetector:
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    student = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    student.args = get_cfg()
    recipe = Recipe(target_share=0.0, lambda_feature=0.5, lambda_attention=3.0)
    objective = Objective("feature", recipe, module_teacher(Pyramid(), (3, 3, 3)), ("a", "b"))
    balance = GradientBalance(objective.lambdas, 0.0)
    return DistilledDetector(student, find_levels(student, recipe.levels), objective, balance).train()


def batch(n: int) -> dict[str, torch.Tensor]:
    return {
        "img": torch.rand(n, 3, 64, 64, generator=torch.Generator().manual_seed(0)),
        "bboxes": torch.tensor([[0.5, 0.5, 0.4, 0.4]]),
        "cls": torch.zeros(1, 1),
        "batch_idx": torch.zeros(1),
    }


def test_terms_are_weighted_and_summed_over_the_pictures(model):
    losses, items = model.loss(batch(3))
    named = list(items.values())
    assert [name for name in items][-2:] == ["feature_loss", "attention_loss"] and len(losses) == len(named)
    for vector, item in zip(losses[-2:], named[-2:], strict=True):
        assert vector.item() == pytest.approx(3 * item.item(), rel=1e-5)  # as Ultralytics multiplies its own losses
    model.balance.weights = {"feature": 1.0, "attention": 1.0}
    model.balance.reset_epoch()
    plain = model.loss(batch(3))[1]
    assert items["feature_loss"].item() == pytest.approx(0.5 * plain["feature_loss"].item(), rel=1e-2)
    assert items["attention_loss"].item() == pytest.approx(3.0 * plain["attention_loss"].item(), rel=1e-2)


def test_labels_are_compared_in_float32(model, monkeypatch):
    seen = []
    original = type(model.student_model).loss

    def record(self, batch, preds=None):
        seen.append({name: value.dtype for name, value in preds.items() if isinstance(value, torch.Tensor)})
        return original(self, batch, preds)

    monkeypatch.setattr(type(model.student_model), "loss", record)
    model.autocast_dtype = torch.bfloat16
    losses, _ = model.loss(batch(2))
    assert seen[0] and set(seen[0].values()) == {torch.float32} and losses.dtype == torch.float32


def test_maps_of_equal_width_begin_with_the_identity():
    maps = torch.randn(2, 4, 3, 3)
    with torch.no_grad():
        assert torch.equal(make_projector("conv", 4, 4)(maps), maps)
        assert make_projector("conv", 4, 6)(maps).shape == (2, 6, 3, 3)


def test_an_amplifier_sees_high_frequencies():
    maps = [torch.randn(1, 2, 8, 8), torch.randn(1, 2, 4, 4)]
    (found,) = HighFrequencyInput()(nn.Identity(), (maps,))
    for ours, theirs in zip(found, maps, strict=True):
        torch.testing.assert_close(ours, high_frequency(theirs))
    assert not torch.allclose(found[0], maps[0])
