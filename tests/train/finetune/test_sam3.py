"""SAM3, tiny: three stages, resume, retention and the vision path, with the code that the full size runs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_tasks import SAM3_PX, make_sam3_task
from torch import nn
from typer.testing import CliRunner

from edgekd.cli.main import app
from edgekd.errors import ModelError
from edgekd.losses.sam3 import ConceptTruth, match, sam3_loss
from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD
from edgekd.train.finetune.averaged import Stage
from edgekd.train.finetune.freeze import apply_policy, set_modes
from edgekd.train.finetune.loop import FinetuneConfig, finetune
from edgekd.train.finetune.sam3 import SAM3_PROMPTS, Sam3Task

pytest.importorskip("transformers")
from edgekd.models import sam3  # noqa: E402
from edgekd.models.sam3 import ADAPTED_LEVELS, Sam3VisionPath, tiny_sam3  # noqa: E402

STAGES = (Stage(1, 2), Stage(2, 2), Stage(3, 2))
CONFIG = FinetuneConfig(stages=STAGES, warmup_steps=1, amp=False, keep=0.0, save_every=1)


def frozen_values(model: nn.Module, policy_task: Sam3Task) -> dict[str, torch.Tensor]:
    trained: set[str] = set()
    for stage in STAGES:
        apply_policy(model, policy_task.policy, stage.number)
        trained |= {n for n, p in model.named_parameters() if p.requires_grad}
    return {n: v.clone() for n, v in model.state_dict().items() if n not in trained}


def test_three_stages_keep_what_is_frozen_and_resume_is_exact(tmp_path: Path) -> None:
    whole = make_sam3_task(tmp_path)
    frozen = frozen_values(whole.model, whole)
    start = {n: v.clone() for n, v in whole.model.state_dict().items()}
    report = finetune(whole, CONFIG, tmp_path / "whole")
    after = whole.model.state_dict()
    assert all(torch.equal(after[n], v) for n, v in frozen.items())
    changed = {n for n, v in after.items() if not torch.equal(v, start[n])}
    for part in (".adapter.", "backbone.layers.7.", "mask_decoder.mask_embedder", "presence_head"):
        assert any(part in n for n in changed), part
    assert [s["stage"] for s in report["stages"]] == [0, 1, 2, 3]
    assert set(report["stages"][1]["retention"]) == set(SAM3_PROMPTS)
    assert all(0 <= r["agreement"] <= 1 for s in report["stages"][1:] for r in s["retention"].values())

    class Stopped(Exception):
        pass

    def stop(stage: Stage, step: int, losses: object) -> None:
        if (stage.number, step) == (2, 1):
            raise Stopped

    with pytest.raises(Stopped):
        finetune(make_sam3_task(tmp_path), CONFIG, tmp_path / "cut", on_step=stop)
    again = make_sam3_task(tmp_path)
    finetune(again, CONFIG, tmp_path / "cut", resume=True)
    assert all(torch.equal(again.model.state_dict()[n], v) for n, v in after.items())
    assert (tmp_path / "cut" / "steps.csv").read_text() == (tmp_path / "whole" / "steps.csv").read_text()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_every_trainable_parameter_gets_a_gradient_and_no_frozen_one(tmp_path: Path, stage: int) -> None:
    run = make_sam3_task(tmp_path)
    for name in ADAPTED_LEVELS:  # a zero up-projection passes no gradient down on its first step
        nn.init.normal_(run.model.get_submodule(f"{name}.adapter.up_low").weight, std=0.1)
        nn.init.normal_(run.model.get_submodule(f"{name}.adapter.up_high").weight, std=0.1)
    apply_policy(run.model, run.policy, stage)
    set_modes(run.model)
    run.step_losses(stage, np.random.default_rng(1))["total"].backward()
    for name, parameter in run.model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_frozen_parts_are_in_eval_mode(tmp_path: Path) -> None:
    run = make_sam3_task(tmp_path)
    apply_policy(run.model, run.policy, 2)
    set_modes(run.model)
    for part in ("text_encoder", "geometry_encoder", "detr_encoder", "detr_decoder.layers", "vision_encoder"):
        assert not any(m.training for m in run.model.get_submodule(part).modules()), part
    assert run.model.get_submodule("mask_decoder.mask_embedder").training


def test_fresh_adapters_change_no_output_bit() -> None:
    plain, adapted = tiny_sam3(seed=3), tiny_sam3(seed=3)
    for name in ADAPTED_LEVELS:
        plain.get_submodule(name).adapter = nn.Identity()
    pixels = torch.randn(1, 3, SAM3_PX, SAM3_PX)
    with torch.no_grad():
        for a, b in zip(Sam3VisionPath(plain.eval())(pixels), Sam3VisionPath(adapted.eval())(pixels), strict=True):
            assert torch.equal(a, b)


def test_a_command_exports_what_was_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The changes that training saved go back into the released folder, and come out as one graph without a wavelet."""
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    with monkeypatch.context() as patch:
        patch.setattr(sam3, "with_adapters", lambda model, rank: model)
        tiny_sam3().save_pretrained(tmp_path / "released")
    task = make_sam3_task(tmp_path)
    for name, parameter in task.model.named_parameters():
        if ".adapter." in name or "backbone.layers.7." in name:
            nn.init.normal_(parameter, std=0.1)
    task.save(tmp_path / "best.pt")
    pixels = torch.randn(1, 3, SAM3_PX, SAM3_PX)
    with torch.no_grad():
        expected = Sam3VisionPath(task.model.eval())(pixels)
    words = ["weights", "vision", "--weights", str(tmp_path / "released"), "--tuned", str(tmp_path / "best.pt")]
    result = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "vision")])
    assert result.exit_code == 0, result.output
    path = tmp_path / "vision" / "vision.onnx"
    assert not any("haar" in n.op_type.lower() or n.domain not in ("", "ai.onnx") for n in onnx.load(path).graph.node)
    found = onnxruntime.InferenceSession(path).run(None, {"pixel_values": pixels.numpy()})
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4)
    description = json.loads((tmp_path / "vision" / "vision.json").read_text())
    assert list(description["levels"].values()) == [list(level.shape) for level in expected]
    assert description["pixel_values"]["shape"] == [1, 3, SAM3_PX, SAM3_PX]

    torch.save({"sam3_delta": {"vision_encoder.nothing": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="no such tensor"):
        sam3.load_tuned_sam3(tmp_path / "released", tmp_path / "other.pt")
    torch.save({"model": {}}, tmp_path / "other.pt")
    with pytest.raises(ModelError, match="no changes to a SAM3"):
        sam3.read_delta(tmp_path / "other.pt")


def test_the_weights_of_the_losses_are_the_published_ones() -> None:
    mask = torch.zeros(1, 4, 4)
    mask[0, :2] = 1
    truth = ConceptTruth(mask, torch.tensor([[0.0, 0.0, 1.0, 0.5]]))
    logits, semantic, presence = torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), torch.zeros(1, 1)
    found = sam3_loss(logits, torch.tensor([[[0.0, 0.0, 1.0, 0.5]]]), semantic, presence, [truth])
    log_two, dice = np.log(2.0), 1 - (2 * 4 + 1) / (8 + 8 + 1)  # every probability is 1/2
    assert float(found["mask"]) == pytest.approx(200 * 0.25 * log_two + 10 * dice, rel=1e-5)
    assert float(found["semantic"]) == pytest.approx(20 * log_two + 30 * dice, rel=1e-5)
    assert float(found["presence"]) == pytest.approx(log_two, rel=1e-5)


def test_pictures_reach_sam3_in_its_own_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TinySAM's normalisation is undone: black is -1 and white 1."""
    task, seen = make_sam3_task(tmp_path), []
    monkeypatch.setattr(task, "model", Recorder(seen))
    ends = np.stack([(np.full(3, value, np.float32) - PIXEL_MEAN) / PIXEL_STD for value in (0, 255)])
    task._forward(ends[:, :, None, None].astype(np.float32), ["disc", "square"], None)
    torch.testing.assert_close(seen[0].flatten(1), torch.tensor([[-1.0] * 3, [1.0] * 3]), atol=1e-5, rtol=0)


class Recorder(nn.Linear):
    """A network that keeps the pictures it is given."""

    def __init__(self, seen: list) -> None:
        super().__init__(1, 1)
        self.seen = seen

    def forward(self, pixel_values: torch.Tensor, **_: object) -> None:
        self.seen.append(pixel_values)


def test_one_question_in_five_asks_for_what_is_not_there(tmp_path: Path) -> None:
    task = make_sam3_task(tmp_path)
    crop = next(task._questions(task.data.validation))[0]
    alone = replace(crop, class_names=("disc",) * len(crop.class_names))
    rng = np.random.default_rng(0)
    asked = [task._concept(alone, rng) for _ in range(1000)]
    assert 0.15 < asked.count("square") / len(asked) < 0.25


def test_matching_finds_the_objects_and_absence_is_a_loss() -> None:
    masks = torch.zeros(2, 8, 8)
    masks[0, :4, :4] = 1
    masks[1, 4:, 4:] = 1
    truth = ConceptTruth(masks, torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]))
    logits = torch.stack([torch.full((8, 8), -5.0), masks[1] * 10 - 5, masks[0] * 10 - 5])
    boxes = torch.tensor([[0.4, 0.4, 0.6, 0.6], [0.5, 0.5, 1.0, 1.0], [0.0, 0.0, 0.5, 0.5]])
    query, index = match(logits, boxes, truth)
    assert dict(zip(query.tolist(), index.tolist(), strict=True)) == {1: 1, 2: 0}
    nothing = ConceptTruth(torch.zeros(0, 8, 8), torch.zeros(0, 4))
    semantic, sure = masks.amax(0)[None, None] * 10 - 5, torch.tensor([[6.0]])
    there = sam3_loss(logits[None], boxes[None], semantic, sure, [truth])
    absent = sam3_loss(logits[None], boxes[None], semantic, sure, [nothing])
    assert absent["presence"] > there["presence"] and absent["semantic"] > there["semantic"]
    assert absent["mask"] == 0 and torch.isfinite(absent["total"])
