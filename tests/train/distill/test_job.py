"""Whole runs on drawn squares: they repeat, resume bit for bit, stop when they must, and leave plain files behind."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_data import write_tiny_dataset

pytest.importorskip("ultralytics")

from edgekd.errors import DataError, InputError, ModelError, TrainingError
from edgekd.models.yolo11n import load_detector
from edgekd.train import checkpoint
from edgekd.train.distill.amplifier import AmplifierJob, train_amplifier
from edgekd.train.distill.job import DistillJob, DistillTrainer, distill, trainer_of
from edgekd.train.distill.recipes import Recipe, Schedule

SCHEDULE = Schedule(epochs=2, imgsz=64, batch=2, accumulate=2, warmup_epochs=1.0, close_mosaic=1)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def teacher_job(data, tmp_path_factory) -> DistillJob:
    job = DistillJob(
        data=data,
        student="yolo11n.yaml",
        output=tmp_path_factory.mktemp("runs") / "teacher",
        recipe=Recipe(schedule=SCHEDULE),
        n_threads=1,
    )
    distill(job)
    return job


@pytest.fixture
def job(data, teacher_job, tmp_path) -> DistillJob:
    """DS2D2 from the teacher, both streams, starting from random weights; not run yet."""
    return ds2d2_job(teacher_job, tmp_path / "run")


@pytest.fixture(scope="module")
def finished(data, teacher_job, tmp_path_factory) -> DistillJob:
    """The same job, run to its end."""
    job = ds2d2_job(teacher_job, tmp_path_factory.mktemp("finished") / "run")
    distill(job)
    return job


def ds2d2_job(teacher_job: DistillJob, output: Path) -> DistillJob:
    return replace(teacher_job, output=output, method="ds2d2", teacher=best_of(teacher_job), seed=3)


def best_of(job: DistillJob) -> Path:
    return job.output / "weights" / "best.pt"


class _Interrupted(Exception):
    pass


def test_a_run_cut_in_two_equals_one_run(job, finished):
    trainer = DistillTrainer(job)

    def interrupt(trainer: DistillTrainer) -> None:
        if trainer.epoch == 1:
            raise _Interrupted

    trainer.add_callback("on_train_batch_end", interrupt)  # in the middle of the second epoch
    with pytest.raises(_Interrupted):
        trainer.train()
    distill(replace(job, resume=True))

    one, two = (checkpoint.read_state(run.resume_file) for run in (finished, job))
    for part in ("model", "ema"):
        assert any(name.startswith("projector.P3") for name in one[part])
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), f"{part} {name}"
    for index, entry in one["optimizer"]["state"].items():
        for name, value in entry.items():
            assert torch.equal(value, two["optimizer"]["state"][index][name]), f"optimizer {index} {name}"
    assert one["balance"] == two["balance"] and one["terms_csv"] == two["terms_csv"]
    assert [row.split(",")[2:] for row in one["results_csv"].split()] == [
        row.split(",")[2:] for row in two["results_csv"].split()
    ]  # all but the wall time


def test_another_seed_is_another_run(job, finished):
    job = replace(job, seed=4, recipe=Recipe(schedule=SCHEDULE.model_copy(update={"epochs": 1})))
    distill(job)
    other, same = (checkpoint.read_state(run.resume_file)["model"] for run in (job, finished))
    assert any(not torch.equal(other[name], same[name]) for name in other)


def test_the_result_is_plain_everywhere(finished, tmp_path):
    job = finished
    script = (
        "import sys; from ultralytics import YOLO; m = YOLO(sys.argv[1]).model;"
        "assert type(m).__name__ == 'DetectionModel' and not any('projector' in k for k in m.state_dict());"
        "assert not any(x._forward_hooks or x._forward_pre_hooks for x in m.modules());"
        "assert not any(name.split('.')[0] == 'edgekd' for name in sys.modules); print('plain')"
    )
    for name in ("best.pt", "last.pt"):
        shown = subprocess.run(
            [sys.executable, "-c", script, str(job.output / "weights" / name)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert "plain" in shown.stdout, shown.stderr
    terms = (job.output / "distillation.csv").read_text()
    assert {"detection", "explicit", "full"} <= {row.split(",")[1] for row in terms.split()}
    assert (job.output / "curves.png").stat().st_size > 10_000
    assert len(json.loads((job.output / "run.json").read_text())["teacher"]["sha256"]) == 64


@pytest.mark.filterwarnings("ignore")
def test_graph_is_that_of_a_run_without_a_teacher(finished, teacher_job, tmp_path):
    import onnx

    counts = []
    for number, path in enumerate((best_of(finished), best_of(teacher_job))):
        file = tmp_path / f"{number}.onnx"
        model = load_detector(path).fuse(verbose=False)
        model.model[-1].export = True
        torch.onnx.export(model, (torch.zeros(1, 3, 64, 64),), str(file), dynamo=False)
        counts.append(len(onnx.load(file).graph.node))
    assert counts[0] == counts[1] > 100


def test_strip_makes_a_resume_file_plain(teacher_job, tmp_path):
    checkpoint.strip(teacher_job.resume_file, tmp_path / "plain.pt")
    stripped, best = load_detector(tmp_path / "plain.pt"), load_detector(teacher_job.output / "weights" / "last.pt")
    for name, tensor in best.state_dict().items():
        assert torch.equal(stripped.state_dict()[name], tensor), name
    assert stripped.names == {0: "red", 1: "blue"}


def test_feature_distillation_and_ultralytics_own_entry(job):
    from ultralytics import YOLO

    job = replace(
        job, method="feature", precision="bf16", recipe=Recipe(schedule=SCHEDULE.model_copy(update={"epochs": 1}))
    )
    YOLO("yolo11n.yaml").train(data=str(job.data), trainer=trainer_of(job))
    terms = (job.output / "distillation.csv").read_text()
    shares = {row.split(",")[1]: float(row.split(",")[5]) for row in terms.split()[1:]}
    assert shares.keys() == {"detection", "feature", "attention", "logits"}
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
    assert sum(shares.values()) - shares["detection"] == pytest.approx(0.1, abs=0.05)


def test_a_student_begins_with_its_teachers_weights(job, teacher_job):
    trainer = DistillTrainer(replace(job, method="inherit"))
    trainer._setup_train()
    assert trainer.wrapper.objective.teacher is None and not trainer.wrapper.term_names
    theirs = load_detector(best_of(teacher_job)).state_dict()
    for name, tensor in trainer.wrapper.student_model.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name].to(tensor), rtol=1e-3, atol=1e-3)
    with pytest.raises(InputError, match="give an architecture"):
        distill(replace(job, method="inherit", student=str(best_of(teacher_job))))


def test_the_teacher_leaves_after_its_epochs(job):
    recipe = Recipe(schedule=SCHEDULE, start="teacher", teacher_epochs=1)
    trainer = DistillTrainer(replace(job, recipe=recipe))
    asked: list[int] = []

    def listen(trainer: DistillTrainer) -> None:
        teacher = trainer.wrapper.objective.teacher
        maps_of = teacher.maps_of
        teacher.maps_of = lambda images: asked.append(trainer.epoch) or maps_of(images)

    trainer.add_callback("on_train_start", listen)
    trainer.train()
    assert asked and set(asked) == {0}
    rows = [row.split(",") for row in (job.output / "distillation.csv").read_text().split()]
    assert {row[0] for row in rows[1:]} == {"1"}
    assert len((job.output / "results.csv").read_text().split()) == 3


def test_amplifier_trains_the_head_alone_and_feeds_the_stream(job, teacher_job, tmp_path):
    train_amplifier(
        AmplifierJob(data=job.data, teacher=best_of(teacher_job), output=tmp_path / "amplifier", schedule=SCHEDULE)
    )
    amplifier = tmp_path / "amplifier" / "weights" / "best.pt"
    before, after = load_detector(best_of(teacher_job)), load_detector(amplifier)
    changed = {
        name.split(".")[1] for name, t in before.state_dict().items() if not torch.equal(t, after.state_dict()[name])
    }
    assert changed == {"23"}
    assert not after.model[-1]._forward_pre_hooks
    distill(replace(job, amplifier=amplifier))
    assert ",high," in (job.output / "distillation.csv").read_text()


def test_broken_loss_stops_with_the_batch_on_disk(job):
    trainer = DistillTrainer(job)

    def poison(trainer: DistillTrainer) -> None:
        if trainer.epoch == 1:
            with torch.no_grad():
                trainer.wrapper.projector["P3"].weight.fill_(float("nan"))

    trainer.add_callback("on_train_epoch_start", poison)
    with pytest.raises(TrainingError, match=r"became nan \(explicit_loss.*epoch 2.*broken_batch.pt"):
        trainer.train()
    saved = torch.load(job.output / "broken_batch.pt", weights_only=True)
    assert saved["batch"]["img"].shape == (2, 3, 64, 64) and len(saved["files"]) == 2
    assert checkpoint.read_state(job.resume_file)["epoch"] == 0


def test_a_run_that_was_killed_after_its_last_epoch_is_ended(teacher_job, tmp_path):
    """Whatever was killed there has its weights, and neither the last validation nor the curves."""
    job = replace(teacher_job, output=tmp_path / "run", resume=True)
    shutil.copytree(teacher_job.output, job.output)
    (job.output / "curves.png").unlink()
    before = checkpoint.read_state(job.resume_file)["model"]
    metrics = distill(job)
    assert 0 <= metrics["metrics/mAP50-95(B)"] <= 1
    assert (job.output / "curves.png").is_file()
    assert (job.output / "results.csv").read_text() == (teacher_job.output / "results.csv").read_text()
    after = checkpoint.read_state(job.resume_file)["model"]
    assert all(torch.equal(before[name], after[name]) for name in before), "no step was taken"
    assert best_of(job).read_bytes() == best_of(teacher_job).read_bytes()


def test_what_cannot_be_resumed(job, teacher_job, tmp_path):
    with pytest.raises(TrainingError, match="does not exist; start the run without `resume`"):
        distill(replace(job, resume=True))
    with pytest.raises(TrainingError, match="holds a run already"):
        distill(replace(teacher_job))
    for content, sentence in ((b"", "cannot be read"), (b"not a checkpoint", "cannot be read")):
        (tmp_path / "resume.pt").write_bytes(content)
        with pytest.raises(TrainingError, match=sentence):
            checkpoint.read_state(tmp_path / "resume.pt")


def test_what_cannot_be_started(job, tmp_path):
    with pytest.raises(InputError, match="give a `teacher`"):
        distill(replace(job, teacher=None))
    with pytest.raises(InputError, match=r"absent.pt does not exist"):
        distill(replace(job, teacher=tmp_path / "absent.pt"))
    with pytest.raises(InputError, match="the method none learns from labels alone"):
        distill(replace(job, method="none"))
    for changes in ({"method": "feature"}, {"recipe": Recipe(lambda_high=0.0)}):
        with pytest.raises(InputError, match="only ds2d2 with a lambda_high above 0 uses it"):
            distill(replace(job, amplifier=job.teacher, **changes))
    with pytest.raises(DataError, match="has an upright box and the detector is oriented; give YOLO-obb"):
        distill(replace(job, student="yolo11n-obb.yaml"))
    with pytest.raises(ModelError, match="has a head of the kind Segment and the labels are boxes"):
        distill(replace(job, student="yolo11n-seg.yaml", output=tmp_path / "segment"))


def test_a_run_has_the_threads_that_it_was_given_or_all(job):
    before = torch.get_num_threads()
    try:
        for given, expected in ((2, 2), (None, len(os.sched_getaffinity(0))), (1, 1)):
            DistillTrainer(replace(job, n_threads=given))
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(before)


TWO_PROCESSES = """
import os, sys, torch
from pathlib import Path
from edgekd.train.distill.job import DistillJob, DistillTrainer
from edgekd.train.distill.recipes import Recipe, Schedule
data, teacher, out = map(Path, sys.argv[1:])
schedule = Schedule(epochs=1, imgsz=64, batch=4, warmup_epochs=0.0, close_mosaic=0)
trainer = DistillTrainer(DistillJob(data=data, student="yolo11n.yaml", output=out, method="ds2d2", teacher=teacher,
    recipe=Recipe(schedule=schedule), n_threads=1))
seen = []
trainer.add_callback("on_train_batch_end", lambda t: seen.extend(t._batch["im_file"]))
trainer.train()
rank = os.environ["RANK"]
torch.save({"weights": dict(trainer.wrapper.named_parameters()), "seen": seen}, out / f"rank{rank}.pt")
"""


def test_two_processes_train_as_one(job, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", str(script)]
    command += [str(job.data), str(job.teacher), str(tmp_path / "pair")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / "pair" / f"rank{r}.pt", weights_only=True) for r in (0, 1))
    assert len(first["seen"]) == len(second["seen"]) == 3 and not set(first["seen"]) & set(second["seen"])
    for name, tensor in first["weights"].items():
        assert torch.equal(tensor, second["weights"][name]), name
    assert (tmp_path / "pair" / "weights" / "best.pt").exists()
