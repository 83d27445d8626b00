"""Freeze policies: the tables fit the released networks to the parameter, and anything else is refused."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgekd.errors import TrainingError
from edgekd.models.spectral_adapter import attach_adapters
from edgekd.models.tinysam import TinySam
from edgekd.train.finetune.freeze import (
    SAM3,
    SAM3_TRACKER,
    TINYSAM,
    FreezePolicy,
    Part,
    apply_policy,
    count_parts,
    counts_table,
    set_modes,
)

NECK_LEVELS = tuple(f"vision_encoder.neck.fpn_layers.{i}" for i in range(3))


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(("stage", "expected"), [(1, 83_940_582), (2, 1_840_898), (3, 85_648_871)])
def test_sam3_full_size_counts(stage: int, expected: int) -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.Sam3Model(transformers.Sam3Config())
        attach_adapters(model, NECK_LEVELS, channels=256, rank=80)
    counts = apply_policy(model, SAM3, stage)
    assert sum(c.n_parameters for c in counts) == 840_376_374 + 495_078
    assert trainable(model) == expected
    names = {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad}
    assert names.isdisjoint({"text_encoder", "text_projection", "geometry_encoder", "detr_encoder"})


def test_sam3_tracker_full_size_counts() -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        model = transformers.Sam3TrackerModel(transformers.Sam3TrackerConfig())
        attach_adapters(model, NECK_LEVELS, channels=256, rank=80)
    apply_policy(model, SAM3_TRACKER, 2)
    assert trainable(model) == 4_215_109


@pytest.mark.parametrize(("stage", "expected"), [(1, 3_470_134), (2, 4_058_340), (3, 7_528_474)])
def test_tinysam_counts(stage: int, expected: int) -> None:
    model = TinySam()
    attach_adapters(model, ("image_encoder.neck",), channels=256, rank=80)
    apply_policy(model, TINYSAM, stage)
    assert trainable(model) == expected


def tiny() -> nn.Module:
    return nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))})


POLICY = FreezePolicy("tiny", (Part("head", ("head.*",), frozenset({1}), 6), Part("body", ("body.*",))))


def test_a_stage_trains_what_the_table_says() -> None:
    model = tiny()
    counts = apply_policy(model, POLICY, stage=1)
    set_modes(model)
    assert model["head"].training and not model["body"][0].training and not model["body"][1].training
    assert "6" in counts_table(counts)[0] and "60.00 %" in counts_table(counts)[-1]
    apply_policy(model, POLICY, stage=2)
    assert trainable(model) == 0


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((*POLICY.parts, Part("neck", ("neck.*",))), "'neck' .* matches no parameter"),
        ((replace(POLICY.parts[0], n_parameters=7), POLICY.parts[1]), "holds 6 parameters, expected 7"),
        (POLICY.parts[:1], "no part .* claims the parameter body"),
    ],
)
def test_a_broken_policy_is_refused_before_anything_changes(parts: tuple[Part, ...], message: str) -> None:
    model = tiny()
    with pytest.raises(TrainingError, match=message):
        apply_policy(model, FreezePolicy("tiny", parts), stage=2)
    assert trainable(model) == sum(p.numel() for p in model.parameters())


def test_another_size_keeps_the_patterns_and_drops_the_counts() -> None:
    broken = FreezePolicy("tiny", (replace(POLICY.parts[0], n_parameters=7), POLICY.parts[1]))
    assert len(count_parts(tiny(), broken.without_counts(), stage=1)) == 2


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(TrainingError, match="stages names 4, expected some of 1, 2, 3"):
        apply_policy(tiny(), POLICY, stage=4)
