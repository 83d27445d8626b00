"""Fine-tuning TinySAM end to end on small pictures: learning, freezing, resume, retention, distillation, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from finetune_tasks import CONFIG, RECIPE, make_task
from segmentation_scenes import scenes, write_scenes
from typer.testing import CliRunner

from edgekd.cli.finetune import finetune as command
from edgekd.errors import DataError, GateFailed, TrainingError
from edgekd.models.prompt_decoder import FOREGROUND
from edgekd.models.tinysam import TinySam, load_tinysam, save_tinysam
from edgekd.train.finetune.averaged import Stage
from edgekd.train.finetune.crops import draw_crops
from edgekd.train.finetune.freeze import apply_policy, set_modes
from edgekd.train.finetune.job import TRAINED_RATE, FinetuneJob, config_for, parse_stages, run_job
from edgekd.train.finetune.loop import FinetuneConfig, build_optimizer, finetune, learning_rate_at
from edgekd.train.finetune.prompts import PROMPT_KINDS, PromptBatch, PromptKind, known_kinds
from edgekd.train.finetune.quality import Retention, check_retention, compare
from edgekd.train.finetune.sam import TinySamTask
from edgekd.train.finetune.teacher import SamTeacher, TinySamTeacher, distillation_loss, load_teacher


def test_a_run_trains_what_it_should_and_resumes_exactly(tmp_path: Path) -> None:
    whole = make_task(tmp_path, adapter_rank=4)
    start = {n: v.clone() for n, v in whole.model.state_dict().items()}
    frozen = []
    for name, _ in whole.model.named_parameters():
        if name.startswith(("image_encoder.backbone.stages_1", "image_encoder.backbone.patch", "prompt_encoder")):
            frozen.append(name)
    report = finetune(whole, CONFIG, tmp_path / "whole")
    after = whole.model.state_dict()
    assert len(frozen) > 50 and all(torch.equal(after[n], start[n]) for n in frozen)
    running = [n for n in start if "stages_0" in n and "running" in n]
    assert running and all(torch.equal(after[n], start[n]) for n in running)
    for part in (".adapter.up_low", "stages_3", "mask_decoder.transformer"):
        assert any(part in n and not torch.equal(after[n], start[n]) for n in start), part
    assert set(report["stages"][1]["retention"]) == set(PROMPT_KINDS)
    assert report["stages"][1]["n_trainable"] == 2_632_340 + 672_768 + (8 * 256 * 4 + 2 * 4 + 4 * 256 + 2)

    def stop(stage: Stage, step: int, losses: object) -> None:
        if (stage.number, step) == (1, 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(make_task(tmp_path, adapter_rank=4), CONFIG, tmp_path / "cut", on_step=stop)
    again = make_task(tmp_path, adapter_rank=4)
    finetune(again, CONFIG, tmp_path / "cut", resume=True)
    assert all(torch.equal(again.model.state_dict()[n], v) for n, v in after.items())
    best = load_tinysam(tmp_path / "whole" / "best.pt")
    assert best.draws_prompts and hasattr(best.image_encoder.neck, "adapter")


def test_a_trained_network_keeps_the_statistics_of_its_norms(tmp_path: Path) -> None:
    """With a momentum of 0.1, twenty steps of four crops each would replace 88 % of them."""
    task = make_task(tmp_path)
    apply_policy(task.model, task.policy, 3)
    start = {name: value.clone() for name, value in task.model.state_dict().items()}

    def changed(fixed_norms: bool) -> list[str]:
        set_modes(task.model, fixed_norms)
        task.step_losses(3, np.random.default_rng(0))
        return [name for name, value in task.model.state_dict().items() if not torch.equal(value, start[name])]

    assert task.policy.fixed_norms and not changed(task.policy.fixed_norms)
    assert any("running_mean" in name for name in changed(fixed_norms=False))


def test_a_network_that_knows_no_points_is_neither_trained_nor_gated_on_them(tmp_path: Path) -> None:
    """The graph of tinysam-nwpu takes boxes, so its checkpoint holds zeros for a foreground point."""
    data = make_task(tmp_path).data
    model = TinySam(draws_prompts=True).eval()
    assert known_kinds(model) == PROMPT_KINDS
    torch.nn.init.zeros_(model.prompt_encoder.point_embeddings[FOREGROUND].weight)
    task = TinySamTask(model, replace(data, kind_shares=(0.3, 0.1, 0.6)))

    drawn: list[str] = []
    original = PromptBatch.of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PromptBatch, "of", lambda crops, kind, rng: drawn.append(kind) or original(crops, kind, rng))
        for seed in range(8):
            task.step_losses(1, np.random.default_rng(seed))

    assert set(drawn) == {"box", "box+centre"} == set(task.predictions())


def test_trained_weights_learn_more_slowly_unless_asked_otherwise() -> None:
    rates = [config_for("tinysam", None, 20, None, 0, from_weights=given).learning_rate for given in (False, True)]
    assert rates[1] == TRAINED_RATE <= rates[0] / 10
    assert config_for("tinysam", None, 20, 3e-4, 0, from_weights=True).learning_rate == 3e-4


def test_a_few_steps_lower_the_loss(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    apply_policy(task.model, task.policy, 3)
    set_modes(task.model, task.policy.fixed_norms)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(8):
        loss = task.step_losses(3, np.random.default_rng(5))["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_masks_are_cut_to_their_boxes_as_when_deployed(tmp_path: Path, kind: PromptKind) -> None:
    task = make_task(tmp_path)
    batch = PromptBatch.of(
        draw_crops(task.data.train, RECIPE, 1, np.random.default_rng(0)), kind, np.random.default_rng(0)
    )
    boxes = torch.tensor([[8.0, 8.0, 24.0, 40.0]]).expand(len(batch.boxes), -1)
    corners = boxes.reshape(-1, 2, 2)
    batch = replace(batch, coords=torch.cat([corners, batch.coords[:, 2:]], dim=1) if kind != "point" else batch.coords)
    with torch.no_grad():
        logits, _ = batch.decode(task.tinysam, task.tinysam.image_encoder(batch.images) + 3)
    outside = torch.ones(16, 16, dtype=torch.bool)
    outside[2:10, 2:6] = False
    assert bool((logits[..., outside] <= -2).all()) == (kind != "point")


def test_distillation_pulls_towards_the_teacher(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    crops = draw_crops(task.data.train, RECIPE, 2, np.random.default_rng(0))
    batch = PromptBatch.of(crops, "box", np.random.default_rng(0))
    teacher = TinySamTeacher(make_task(tmp_path, seed=1).tinysam)
    answer = teacher.masks(batch)
    assert answer.shape == batch.target.shape
    iou = torch.zeros(len(answer), 3)
    weight = torch.ones_like(batch.target)
    agreeing = distillation_loss(teacher, batch, (answer.sign() * 20).expand(-1, 3, -1, -1), iou, weight)
    opposing = distillation_loss(teacher, batch, (answer.sign() * -20).expand(-1, 3, -1, -1), iou, weight)
    assert agreeing < opposing


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_a_sam_of_transformers_teaches(tmp_path: Path, kind: str) -> None:
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.SamConfig(
        vision_config=small
        | {"image_size": 128, "output_channels": 32, "window_size": 4, "global_attn_indexes": [0], "mlp_dim": 32}
        | {"num_pos_feats": 16},
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "image_embedding_size": 8},
        mask_decoder_config=small | {"mlp_dim": 32, "iou_head_hidden_dim": 32},
    )
    transformers.SamModel(config).save_pretrained(tmp_path / "sam")
    teacher = load_teacher(tmp_path / "sam")
    assert isinstance(teacher, SamTeacher)
    crops = draw_crops(scenes(tmp_path), RECIPE, 2, np.random.default_rng(0))
    batch = PromptBatch.of(crops, kind, np.random.default_rng(0))  # type: ignore[arg-type]
    masks = teacher.masks(batch)
    assert masks.shape[:2] == batch.target.shape[:2] and torch.isfinite(masks).all()


def test_a_run_that_forgets_stops_with_its_state_kept(tmp_path: Path) -> None:
    with pytest.raises(GateFailed, match="keeps .* expected 300 %"):
        finetune(make_task(tmp_path), replace(CONFIG, keep=3.0), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["stages"][-1]["stage"] == 1 and (tmp_path / "run" / "resume.pt").is_file()


def test_a_resume_file_of_another_run_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, stages=(Stage(2, 1),))
    finetune(make_task(tmp_path), config, tmp_path / "run")
    with pytest.raises(TrainingError, match="other settings"):
        finetune(make_task(tmp_path), replace(config, seed=1), tmp_path / "run", resume=True)
    with pytest.raises(TrainingError, match="does not exist"):
        finetune(make_task(tmp_path), config, tmp_path / "nowhere", resume=True)


def test_retention_compares_and_gates() -> None:
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[:1] = True, True
    assert compare([a], [b]) == Retention(0.5, None, None, 1)
    found = compare([a, a], [b, a], truths=[a, a])
    assert (found.agreement, found.miou_before, found.miou_after, found.kept) == (0.75, 1.0, 0.75, 0.75)
    check_retention({"box": found}, stage=1, keep=0.75, state=Path("r.pt"))
    with pytest.raises(GateFailed, match="'box' keeps 75.0 %.*the weights are in r.pt"):
        check_retention({"box": found, "point": Retention(1.0, 0.5, 0.9, 1)}, 1, 0.95, Path("r.pt"))


def test_deeper_layers_learn_slower(tmp_path: Path) -> None:
    task = make_task(tmp_path)
    for parameter in task.model.parameters():
        parameter.requires_grad_(True)
    optimizer = build_optimizer(task, FinetuneConfig(layer_decay=0.5, weight_decay=0.1))
    scale = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    of = dict(task.model.named_parameters())
    assert scale[id(of["mask_decoder.iou_token.weight"])] == 1.0 and decay[id(of["mask_decoder.iou_token.weight"])] == 0
    for stage in (1, 2, 3):
        name = f"image_encoder.backbone.stages_{stage}.blocks.0.attn.qkv.weight"
        assert scale[id(of[name])] == 0.5 ** (4 - stage) and decay[id(of[name])] == 0.1
    assert scale[id(of["image_encoder.backbone.patch_embed.conv1.conv.weight"])] == 0.5**5


def test_the_learning_rate_warms_up_and_falls() -> None:
    config = FinetuneConfig(learning_rate=1.0, warmup_steps=10, final_share=0.1)
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=1e-3) and max(rates) == max(rates[8:12])
    assert rates[-1] == pytest.approx(0.1, abs=2e-3) and rates[20:] == sorted(rates[20:], reverse=True)


def test_the_command_line_trains_from_nothing(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(command)
    write_scenes(tmp_path)
    arguments = ["--data", tmp_path / "annotations.json", "-o", tmp_path / "run", "--stages", "3", "--steps", "1"]
    arguments += [
        "--imgsz",
        "64",
        "--validation-px",
        "64",
        "--batch",
        "1",
        "--keep",
        "0",
        "--json",
        tmp_path / "r.json",
    ]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["model"] == "TinySAM from random weights" and len(report["data"]["validation"]) == 1
    assert (tmp_path / "run" / "curves.png").is_file() and load_tinysam(tmp_path / "run" / "best.pt").draws_prompts


def job(folder: Path, **changes: object) -> FinetuneJob:
    settings = {"model": "tinysam", "data": folder / "annotations.json", "output": folder / "run", "config": CONFIG}
    return FinetuneJob(**(settings | changes))  # type: ignore[arg-type]


def test_bad_orders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_scenes(tmp_path)

    def run(**changes: object) -> None:
        run_job(job(tmp_path, **changes), lambda *a: None, lambda text: None)

    (tmp_path / "split.json").write_text(json.dumps({"train": ["0.png"], "validation": ["0.png"]}))
    with pytest.raises(DataError, match="1 in both"):
        run(split=tmp_path / "split.json")
    with pytest.raises(DataError, match="not a split file"):
        run(split=tmp_path / "0.png")
    with pytest.raises(DataError, match="does not hold images/ and labels/"):
        run(data=tmp_path)
    with pytest.raises(Exception, match="multiple of 32"):
        run(imgsz=100)
    with pytest.raises(TrainingError, match="never trained from nothing"):
        run(model="sam3")
    for text in ("4", "x", ""):
        with pytest.raises(Exception, match="^stages is"):
            parse_stages(text, 1)
    monkeypatch.setattr("edgekd.train.finetune.job.FREE_BYTES", 1 << 62)
    with pytest.raises(TrainingError, match="free space"):
        run()


def test_an_adapter_survives_the_file(tmp_path: Path) -> None:
    task = make_task(tmp_path, adapter_rank=4)
    torch.nn.init.normal_(task.tinysam.image_encoder.neck.adapter.up_low.weight)
    save_tinysam(task.tinysam, tmp_path / "adapted.pt")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = task.tinysam.eval().image_encoder(image)
        assert torch.equal(load_tinysam(tmp_path / "adapted.pt").image_encoder(image), expected)
