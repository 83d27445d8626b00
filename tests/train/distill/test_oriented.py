"""An oriented student: trained and distilled on turned labels, resumed bit for bit, plain, and ready for export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_data import write_turned_dataset

pytest.importorskip("ultralytics")

from oriented_nets import TINY

from edgekd.data.labels import LabelledPicture
from edgekd.errors import TrainingError
from edgekd.models.yolo11n import facts_of, load_detector
from edgekd.runtime.oriented import boxes_of
from edgekd.train import checkpoint
from edgekd.train.distill.dataset import describe_dataset
from edgekd.train.distill.job import DistillJob, DistillTrainer, distill
from edgekd.train.distill.recipes import Recipe, Schedule

SCHEDULE = Schedule(epochs=2, imgsz=64, batch=3, warmup_epochs=1.0, close_mosaic=1)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> DistillJob:
    """A run on labels alone, whose checkpoint teaches the others; a network of five layers."""
    folder = tmp_path_factory.mktemp("turned")
    (folder / "tiny-obb.yaml").write_text(yaml.safe_dump(TINY | {"nc": 2}))
    job = DistillJob(
        data=write_turned_dataset(folder / "data"), student=str(folder / "tiny-obb.yaml"), output=folder / "teacher",
        recipe=Recipe(schedule=SCHEDULE), n_threads=1,
    )  # fmt: skip
    metrics = distill(job)
    assert {"metrics/mAP50(B)", "metrics/mAP50-95(B)"} <= set(metrics)
    return job


def test_a_run_makes_a_plain_oriented_checkpoint(teacher: DistillJob) -> None:
    best = load_detector(teacher.output / "weights" / "best.pt", oriented=True)
    facts = facts_of(best)
    assert (type(best).__name__, facts.angle, facts.class_names) == ("OBBModel", "sigmoid", ("red", "blue"))
    losses = (teacher.output / "results.csv").read_text().splitlines()
    assert "train/angle_loss" in losses[0] and len(losses) == 3
    untrained = checkpoint.read_state(teacher.resume_file)["model"]
    assert any("cv4" in name for name in untrained)


def test_a_cut_distillation_equals_one_run_and_teaches_angles(teacher: DistillJob, tmp_path: Path) -> None:
    job = replace(teacher, method="ds2d2", teacher=teacher.output / "weights" / "best.pt", seed=2)
    distill(replace(job, output=tmp_path / "whole"))
    trainer = DistillTrainer(replace(job, output=tmp_path / "cut"))

    class Interrupted(Exception):
        pass

    def interrupt(trainer: DistillTrainer) -> None:
        if trainer.epoch == 1:
            raise Interrupted

    trainer.add_callback("on_train_batch_end", interrupt)
    with pytest.raises(Interrupted):
        trainer.train()
    distill(replace(job, output=tmp_path / "cut", resume=True))
    whole, cut = (checkpoint.read_state(tmp_path / name / "weights" / "resume.pt") for name in ("whole", "cut"))
    for name, tensor in whole["ema"].items():
        assert torch.equal(tensor, cut["ema"][name]), name
    assert {"explicit", "full"} <= {row.split(",")[1] for row in whole["terms_csv"].split()}
    checkpoint.strip(tmp_path / "whole" / "weights" / "resume.pt", tmp_path / "plain.pt")
    assert facts_of(load_detector(tmp_path / "plain.pt", oriented=True)).angle == "sigmoid"
    with pytest.raises(TrainingError, match="another .*seed"):
        distill(replace(job, output=tmp_path / "cut", resume=True, seed=9))


def test_what_the_network_sees_is_what_the_labels_say(teacher: DistillJob, tmp_path: Path) -> None:
    """Boxes of a batch, which Ultralytics makes from the four corners, are those of the label files."""
    trainer = DistillTrainer(replace(teacher, output=tmp_path / "run"))
    trainer.setup_model()
    labels, _ = describe_dataset(teacher.data, tmp_path / "seen", oriented=True)
    dataset = trainer.build_dataset(str(teacher.data), "val")
    item = dataset[0]
    picture: LabelledPicture = next(p for p in labels["val"].pictures if str(p.path) == item["im_file"])
    expected = boxes_of(np.array([picture.turned_corners(index) for index in range(len(picture))]))
    found = item["bboxes"].numpy().astype(np.float64)
    order = np.argsort(item["cls"].numpy().ravel())
    side = item["img"].shape[-1]  # the picture of 64 px lies in the middle of a letterbox
    found = found[order] * [side, side, side, side, 1] - [(side - 64) / 2, (side - 64) / 2, 0, 0, 0]
    np.testing.assert_allclose(found[:, :2], expected[:, :2], atol=0.5)
    np.testing.assert_allclose(np.sort(found[:, 2:4], 1), np.sort(expected[:, 2:4], 1), atol=0.7)
    quarter = (found[:, 2] < found[:, 3]) != (expected[:, 2] < expected[:, 3])
    np.testing.assert_allclose(np.sin(found[:, 4] + quarter * np.pi / 2 - expected[:, 4]), 0, atol=0.03)
