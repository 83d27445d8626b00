"""A gate that holds: no resume, kill, rename or second process gets past it, and no stop loses weights."""

import errno
import json
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from finetune_tasks import CONFIG, RECIPE, make_sam3_task, make_task
from segmentation_scenes import scenes, write_scenes

from edgekd.errors import GateFailed, InputError, Interrupted, TrainingError
from edgekd.models.tinysam import TinySam
from edgekd.train.finetune.averaged import Stage
from edgekd.train.finetune.job import FinetuneJob, _check_space, run_job
from edgekd.train.finetune.loop import finetune
from edgekd.train.finetune.sam import TinySamData, TinySamTask
from edgekd.train.run_folder import locked

ONE_STAGE = replace(CONFIG, stages=(Stage(2, 2),))
STRICT = replace(ONE_STAGE, keep=3.0)  # three times the earlier quality: nothing passes


def test_a_failed_gate_fails_again_however_it_is_resumed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(GateFailed, match=f"the weights are in {run}/resume.pt"):
        finetune(make_task(tmp_path), STRICT, run)
    with pytest.raises(GateFailed):
        finetune(make_task(tmp_path), STRICT, run, resume=True)
    run.rename(tmp_path / "renamed")
    with pytest.raises(GateFailed):
        finetune(make_task(tmp_path), STRICT, tmp_path / "renamed", resume=True)
    assert not (tmp_path / "renamed" / "best.pt").exists()
    report = json.loads((tmp_path / "renamed" / "report.json").read_text())
    assert report["stages"][-1]["stage"] == 2 and report["stages"][-1]["keep"] == 3.0
    finetune(make_task(tmp_path), ONE_STAGE, tmp_path / "renamed", resume=True)  # asked for: a lower limit
    assert (tmp_path / "renamed" / "best.pt").is_file()


def test_the_gate_compares_with_the_network_that_the_run_began_with(tmp_path: Path) -> None:
    with pytest.raises(GateFailed):
        finetune(make_task(tmp_path), STRICT, tmp_path / "run")
    with pytest.raises(TrainingError, match="began with other weights"):
        finetune(make_task(tmp_path, seed=1), STRICT, tmp_path / "run", resume=True)
    other = make_task(tmp_path)
    other.data = replace(other.data, retention=scenes(tmp_path, n=2)[1:])
    with pytest.raises(TrainingError, match="other retention pictures"):
        finetune(other, STRICT, tmp_path / "run", resume=True)


def test_a_kill_before_the_gate_leaves_the_stage_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(tmp_path)
    n_calls = iter(range(9))

    def killed() -> dict:
        if next(n_calls) == 0:
            return {}
        raise SystemExit  # at the validation after the last step

    monkeypatch.setattr(task, "evaluate", killed)
    with pytest.raises(SystemExit):
        finetune(task, STRICT, tmp_path / "run")
    with pytest.raises(GateFailed):
        finetune(make_task(tmp_path), STRICT, tmp_path / "run", resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_saves_the_step_it_came_in(tmp_path: Path, number: signal.Signals) -> None:
    config = replace(ONE_STAGE, stages=(Stage(2, 3),), save_every=100)
    whole = make_task(tmp_path)
    finetune(whole, config, tmp_path / "whole")

    def stop(stage: Stage, step: int, losses: object) -> None:
        if step == 0:
            handler = signal.getsignal(number)  # asked itself: a real signal would also reach the test runner
            assert callable(handler)
            handler(number, None)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped after step 1 of 3 of stage 2; the weights are in .*resume.pt"):
        finetune(make_task(tmp_path), config, tmp_path / "cut", on_step=stop)
    assert signal.getsignal(number) is before
    again = make_task(tmp_path)
    finetune(again, config, tmp_path / "cut", resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    logs = [(tmp_path / run / "steps.csv").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1] and logs[0].count("\n") == 4


def test_the_log_of_a_run_killed_before_it_saved_is_kept_aside(tmp_path: Path) -> None:
    """Nothing can be resumed there: the next run begins in the same folder with a log of its own."""
    finetune(make_task(tmp_path), ONE_STAGE, tmp_path / "whole")
    log = tmp_path / "cut" / "steps.csv"
    log.parent.mkdir()
    log.write_text("stage,step,total\n2,1,9\n")
    finetune(make_task(tmp_path), ONE_STAGE, tmp_path / "cut")
    assert log.read_text() == (tmp_path / "whole" / "steps.csv").read_text()
    assert log.with_name("steps.before1.csv").read_text() == "stage,step,total\n2,1,9\n"


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(InputError, match="run cannot be written .Permission denied."):
        _check_space(tmp_path / "run")


def test_a_folder_belongs_to_one_run(tmp_path: Path) -> None:
    with locked(tmp_path / "run"), pytest.raises(TrainingError, match="in use by another run"):
        finetune(make_task(tmp_path), ONE_STAGE, tmp_path / "run")
    (tmp_path / "run" / "best.pt").touch()
    with pytest.raises(TrainingError, match="holds the best.pt of a run"):
        finetune(make_task(tmp_path), ONE_STAGE, tmp_path / "run")


def test_retention_is_measured_on_the_original_task(tmp_path: Path) -> None:
    """The report names the pictures, and the network is asked about those and no others."""
    (tmp_path / "old").mkdir()
    write_scenes(tmp_path)
    old = write_scenes(tmp_path / "old", n=1)
    config = replace(CONFIG, stages=(Stage(2, 1),))
    job = FinetuneJob(
        model="tinysam",
        data=tmp_path / "annotations.json",
        output=tmp_path / "run",
        config=config,
        imgsz=64,
        validation_px=64,
        keep_data=old,
    )
    said: list[str] = []
    report = run_job(job, lambda *a: None, said.append)
    assert report["data"]["retention"] == ["0.png"] and report["data"]["retention_task"] == "the original task"
    assert report["stages"][1]["retention"]["box"]["n_masks"] == 2
    report = run_job(replace(job, keep_data=None, output=tmp_path / "second"), lambda *a: None, said.append)
    assert report["data"]["retention_task"] == "the new task"


def test_what_is_kept_of_sam3_is_quality_and_not_agreement(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    run = make_sam3_task(tmp_path)
    truths, masks = run.truths(), run.predictions()
    assert len(truths) == len(masks["text"]) == 2 and all(t.any() and t.dtype == np.bool_ for t in truths)


def test_what_sam3_cannot_use_is_refused(tmp_path: Path) -> None:
    write_scenes(tmp_path)
    job = FinetuneJob(
        model="sam3",
        data=tmp_path / "annotations.json",
        output=tmp_path / "run",
        config=CONFIG,
        weights=tmp_path,
        imgsz=448,
    )
    with pytest.raises(InputError, match="imgsz and validation_px cannot be chosen for SAM3"):
        run_job(replace(job, validation_px=512), lambda *a: None, lambda text: None)
    with pytest.raises(InputError, match="teacher cannot be chosen"):
        run_job(replace(job, imgsz=None, teacher=tmp_path), lambda *a: None, lambda text: None)


def test_an_adapter_for_nothing_is_refused(tmp_path: Path) -> None:
    data = TinySamData(scenes(tmp_path), scenes(tmp_path)[:1], scenes(tmp_path)[:1], RECIPE)
    with pytest.raises(TrainingError, match="adapter_rank is 2 and there are no trained weights"):
        TinySamTask(TinySam(), data, adapter_rank=2, from_nothing=True)
