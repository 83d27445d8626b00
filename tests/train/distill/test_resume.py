"""Runs that start from a checkpoint of other classes: cut, resumed and stripped, they lose nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_data import write_tiny_dataset

pytest.importorskip("ultralytics")

from edgekd.errors import InputError, ModelError, TrainingError
from edgekd.models.yolo11n import load_detector
from edgekd.train import checkpoint
from edgekd.train.distill.job import DistillJob, DistillTrainer, distill
from edgekd.train.distill.recipes import Recipe, Schedule
from edgekd.train.run_folder import locked, restore_log, set_aside

SCHEDULE = Schedule(epochs=2, imgsz=64, batch=3, warmup_epochs=1.0, close_mosaic=1)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class _Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def coco_like(tmp_path_factory) -> Path:
    """A random YOLO11n of 80 classes: its class branch is 80 wide, that of one built for two classes is 64 wide."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("coco") / "coco.pt"
    model = DetectionModel("yolo11n.yaml", nc=80, verbose=False)
    checkpoint.write_atomically(path, checkpoint.plain_checkpoint(model, {}, {}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_tiny_dataset(tmp_path_factory.mktemp("squares"), n_pictures=3)


@pytest.fixture
def job(coco_like, data, tmp_path) -> DistillJob:
    """A detector with other classes teaches from and to the weights of COCO."""
    recipe = Recipe(schedule=SCHEDULE, lambda_full=0.0, lambda_high=0.0)
    return DistillJob(
        data=data,
        student=str(coco_like),
        output=tmp_path / "run",
        method="ds2d2",
        teacher=coco_like,
        recipe=recipe,
        n_threads=1,
    )


def cut(job: DistillJob, epoch: int = 1) -> None:
    """Run a job and stop it after the first batch of an epoch."""

    def interrupt(trainer: DistillTrainer) -> None:
        if trainer.epoch == epoch:
            raise _Interrupted

    trainer = DistillTrainer(job)
    trainer.add_callback("on_train_batch_end", interrupt)
    with pytest.raises(_Interrupted):
        trainer.train()


def test_a_run_from_other_classes_resumes_bit_for_bit(job, tmp_path):
    whole = replace(job, output=tmp_path / "whole")
    distill(whole)
    cut(job)
    width = checkpoint.read_state(job.resume_file)["model"]["student_model.model.23.cv3.0.2.weight"].shape[1]
    assert width == 80
    log = (job.output / "results.csv").read_text()
    distill(replace(job, resume=True))
    assert (job.output / "results.csv").read_text().startswith(log) and log.count("\n") == 2
    one, two = (checkpoint.read_state(run.resume_file) for run in (whole, job))
    for part in ("model", "ema"):
        for name, tensor in one[part].items():
            assert torch.equal(tensor, two[part][name]), f"{part} {name}"
    assert one["balance"] == two["balance"] and one["terms_csv"] == two["terms_csv"]
    checkpoint.strip(job.resume_file, tmp_path / "plain.pt")
    plain = load_detector(tmp_path / "plain.pt")
    assert plain.names == {0: "red", 1: "blue"} and plain.model[23].cv3[0][2].in_channels == 80


def test_a_refused_resume_leaves_the_logs_as_they_were(job):
    cut(job)
    logs = [job.output / name for name in ("results.csv", "distillation.csv")]
    before = [log.read_text() for log in logs]
    for changes, sentence in (
        ({"method": "none", "teacher": None}, "another method, teacher"),
        ({"seed": 5}, "another seed"),
        ({"recipe": Recipe(schedule=SCHEDULE)}, "another recipe"),
    ):
        with pytest.raises(TrainingError, match=sentence):
            distill(replace(job, resume=True, **changes))
    state = torch.load(job.resume_file, weights_only=True)
    del state["model"]["student_model.model.0.conv.weight"]
    torch.save(state, job.resume_file)
    with pytest.raises(TrainingError, match="do not fit"):
        distill(replace(job, resume=True))
    assert [log.read_text() for log in logs] == before


def test_two_runs_do_not_share_a_folder(job):
    with locked(job.output), pytest.raises(TrainingError, match="in use by another run"):
        distill(job)
    assert not list(job.output.iterdir())


def test_logs_only_grow(tmp_path):
    log = tmp_path / "results.csv"
    log.write_text("epoch\n1\n2\n")
    (tmp_path / ".results.edgekd-tmp-abcdefgh.csv").touch()  # of a run that was killed while it wrote
    restore_log(log, "epoch\n1\n")
    assert log.read_text() == "epoch\n1\n"
    restore_log(log, "epoch\n7\n")  # another run's
    assert (tmp_path / "results.before1.csv").read_text() == "epoch\n1\n"
    assert not list(tmp_path.glob(".*"))
    set_aside(log)
    assert (tmp_path / "results.before2.csv").read_text() == "epoch\n7\n" and not log.exists()


def test_what_strip_refuses_in_one_sentence(job, tmp_path):
    state = {"format": checkpoint.STATE_FORMAT, "run": "finetune", "policy": "TinySAM"}
    torch.save(state, tmp_path / "resume.pt")
    with pytest.raises(TrainingError, match="run of edgekd finetune"):
        checkpoint.strip(tmp_path / "resume.pt", tmp_path / "plain.pt")
    torch.save({"format": checkpoint.STATE_FORMAT, "model": {}}, tmp_path / "resume.pt")
    with pytest.raises(TrainingError, match="lacks ema, student_yaml"):
        checkpoint.strip(tmp_path / "resume.pt", tmp_path / "plain.pt")


def test_a_gpu_that_is_not_there_is_one_sentence(job, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match="the device is '0' and PyTorch sees 0 GPUs"):
        distill(replace(job, device="0"))
    assert not job.output.exists()


EVIL = "__import__('pathlib').Path({!r}).touch()"


@pytest.fixture
def evil(tmp_path) -> tuple[Path, dict]:
    """A description whose activation is code, and the file that the code would make."""
    import yaml
    from ultralytics.nn.tasks import yaml_model_load

    mark = tmp_path / "executed"
    description = yaml_model_load("yolo11n.yaml") | {"activation": EVIL.format(str(mark))}
    (tmp_path / "evil.yaml").write_text(yaml.safe_dump(description))
    return mark, description


def test_no_code_runs_from_an_architecture(job, evil, tmp_path, monkeypatch):
    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks, "SAFE_LOAD", False)  # as without ULTRALYTICS_SAFE_LOAD
    mark, description = evil
    with pytest.raises(ModelError, match="it would be run as code"):
        distill(replace(job, student=str(tmp_path / "evil.yaml")))

    carrier = tmp_path / "carrier.pt"  # a checkpoint that carries the description
    model = load_detector(job.student)
    model.yaml = description
    torch.save({"model": model, "ema": None}, carrier)
    with pytest.raises(ModelError, match="it would be run as code"):
        distill(replace(job, student=str(carrier), output=tmp_path / "second"))

    job.resume_file.parent.mkdir(parents=True, exist_ok=True)
    state = {name: {} for name in ("model", "ema", "optimizer", "train_args")}
    state |= {"format": checkpoint.STATE_FORMAT, "epoch": 0, "results_csv": "", "class_names": ["red", "blue"]}
    torch.save(state | {"student_yaml": description}, job.resume_file)
    with pytest.raises(TrainingError, match="it would be run as code"):
        distill(replace(job, resume=True))
    with pytest.raises(ModelError, match="it would be run as code"):
        checkpoint.strip(job.resume_file, tmp_path / "plain.pt")
    assert not mark.exists()


def test_no_code_runs_from_a_segmenter_checkpoint(tmp_path):
    import pickle

    from edgekd.models.tinysam import load_tinysam
    from edgekd.train.finetune.teacher import load_teacher

    mark = tmp_path / "executed"

    class Carrier:
        def __reduce__(self) -> tuple:
            return exec, (EVIL.format(str(mark)),)

    for index, content in enumerate(({"model": Carrier()}, {"model": {}, "adapter": Carrier()})):
        path = tmp_path / f"{index}.pth"
        torch.save(content, path)
        for load in (load_tinysam, load_teacher):
            with pytest.raises(ModelError):
                load(path)
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Carrier()))
    with pytest.raises(ModelError):
        load_tinysam(tmp_path / "raw.pth")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"backbone": "x"}, "expected a list of layers"),
        ({"head": [[-1, 1, "check_file", ["http://x"]]]}, "not a layer"),
        ({"head": [[-1, 1, "nn.Module.__init__", []]]}, "not a layer"),
        ({"head": [[-1, 1, "TorchVision", ["resnet18"]]]}, "not a layer"),
        ({"head": [[-1, 1, "DetectionModel", []]]}, "not a layer"),
        ({"head": [[-1, 1, "Conv", [1 << 40]]]}, "expected numbers up to"),
        ({"head": [[-1, 1, "Conv", ["a b; c"]]]}, "plain words"),
        ({"head": [[-1, 1, "Conv"]]}, "expected .from, number, module"),
        ({"activation": "nn.functional.relu(1)"}, "it would be run as code"),
        ({"activation": 7}, "it would be run as code"),
    ],
)
def test_descriptions_that_are_refused(change, sentence):
    from edgekd.models.architecture import check_architecture, read_architecture

    whole = read_architecture("yolo11n.yaml")
    assert check_architecture(whole | {"activation": "nn.LeakyReLU(0.1)"}, "x")["activation"] == "nn.LeakyReLU(0.1)"
    with pytest.raises(ModelError, match=sentence):
        check_architecture(whole | change, "x")
    with pytest.raises(ModelError, match="describes no detector"):
        check_architecture([], "x")


def test_an_address_is_no_architecture():
    from edgekd.models.architecture import read_architecture

    with pytest.raises(ModelError, match="is an address"):
        read_architecture("https://example.com/evil.yaml")
    with pytest.raises(ModelError, match="cannot be read as an architecture"):
        read_architecture("absent-thing.yaml")


def test_the_record_names_the_amplifier(job, coco_like):
    from edgekd.train.distill.job import describe_job

    described = json.loads(json.dumps(describe_job(replace(job, amplifier=coco_like))))
    assert len(described["amplifier"]["sha256"]) == 64
