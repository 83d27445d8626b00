"""The cache of a teacher's maps: the same numbers from the disk, never those of another view, and whole runs."""

from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_data import write_tiny_dataset
from torch import Tensor, nn

pytest.importorskip("ultralytics")

from edgekd.errors import TrainingError
from edgekd.train import checkpoint
from edgekd.train.distill.feature_cache import FeatureCache, view_keys
from edgekd.train.distill.job import DistillJob, DistillTrainer, distill
from edgekd.train.distill.recipes import Recipe, Schedule

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


class Counting:
    """Maps of two levels, and how many pictures it was asked for."""

    def __init__(self) -> None:
        self.mix = nn.Conv2d(3, 5, 1)
        self.n_asked = 0

    @torch.no_grad()
    def __call__(self, images: Tensor) -> list[Tensor]:
        self.n_asked += len(images)
        return [nn.functional.avg_pool2d(self.mix(images), stride) for stride in (8, 16)]


@pytest.fixture
def pictures() -> Tensor:
    return torch.randint(0, 256, (3, 3, 32, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_warm_cache_gives_what_a_cold_one_gave(tmp_path: Path, pictures: Tensor) -> None:
    teacher, images, keys = Counting(), pictures / 255, view_keys(pictures)
    cold = FeatureCache(tmp_path, {"a": 1}).maps(teacher, images, keys)
    again = FeatureCache(tmp_path, {"a": 1})
    warm = again.maps(teacher, images, keys)
    assert teacher.n_asked == 3 and (again.use.n_read, again.use.n_computed) == (3, 0) and again.n_bytes > 0
    for one, two, exact in zip(cold, warm, teacher(images), strict=True):
        assert torch.equal(one, two) and one.dtype == torch.float32
        torch.testing.assert_close(two, exact, rtol=1e-3, atol=1e-3)


def test_another_view_or_teacher_is_computed(tmp_path: Path, pictures: Tensor) -> None:
    teacher, cache = Counting(), FeatureCache(tmp_path, {"a": 1})
    cache.maps(teacher, pictures / 255, view_keys(pictures))
    views = (pictures.flip(-1), pictures.flip(-2), pictures.roll(1, -1), pictures.transpose(-1, -2).contiguous())
    for number, other in enumerate(views, start=1):
        mixed = torch.cat((other, pictures)) if other.shape == pictures.shape else other
        found = cache.maps(teacher, mixed / 255, view_keys(mixed))
        assert teacher.n_asked == 3 + 3 * number
        torch.testing.assert_close(found[0], teacher(mixed / 255)[0], rtol=1e-3, atol=1e-3)
        teacher.n_asked -= len(mixed)
    other_teacher = FeatureCache(tmp_path, {"a": 2})
    other_teacher.maps(teacher, pictures / 255, view_keys(pictures))
    assert other_teacher.use.n_computed == 3


def test_a_file_cut_short_is_computed_again(tmp_path: Path, pictures: Tensor) -> None:
    teacher, keys = Counting(), view_keys(pictures)
    cache = FeatureCache(tmp_path, {})
    first = cache.maps(teacher, pictures / 255, keys)
    for path, content in zip(sorted(cache.folder.rglob("*.f16")), (b"", b"no shapes\n", b"5x4x6\n123"), strict=True):
        path.write_bytes(content)
    again = cache.maps(teacher, pictures / 255, keys)
    assert teacher.n_asked == 6 and torch.equal(first[0], again[0])


def test_a_full_cache_and_a_full_disk(tmp_path: Path, pictures: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    small = FeatureCache(tmp_path, {}, largest_bytes=400)  # a picture takes 312
    small.maps(Counting(), pictures / 255, view_keys(pictures))
    assert small.use.n_not_kept == 2 and small.n_bytes <= 400
    cache = FeatureCache(tmp_path, {"b": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(TrainingError, match="No space left on device.; free space"):
        cache.maps(Counting(), pictures / 255, view_keys(pictures))
    assert not [path for path in cache.folder.rglob("*") if path.is_file() and path.suffix != ".json"]


def test_what_a_killed_run_was_writing_goes_with_the_next_one(tmp_path: Path) -> None:
    folder = FeatureCache(tmp_path, {}).folder
    (folder / "ab").mkdir()
    for name in (".killed", ".living"):
        (folder / "ab" / name).write_bytes(b"half")
    os.utime(folder / "ab/.killed", (0, 0))
    FeatureCache(tmp_path, {})
    assert [path.name for path in (folder / "ab").iterdir()] == [".living"]


def test_a_run_with_a_cache_is_the_run_without(tmp_path: Path) -> None:
    """One view for all epochs: the teacher is computed in the first epoch and read in the second."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    teacher = tmp_path / "teacher.pt"
    model = DetectionModel("yolo11n.yaml", nc=2, verbose=False)
    checkpoint.write_atomically(teacher, checkpoint.plain_checkpoint(model, {}, {}))
    schedule = Schedule(epochs=2, imgsz=64, batch=3, warmup_epochs=0.0, close_mosaic=0)
    recipe = Recipe(schedule=schedule, n_views=1, lambda_high=0.0)
    data = write_tiny_dataset(tmp_path / "squares", n_pictures=3)
    job = DistillJob(
        data=data, student="yolo11n.yaml", output=tmp_path / "plain", method="ds2d2", teacher=teacher, recipe=recipe,
        n_threads=1,
    )  # fmt: skip
    distill(job)
    cached = replace(job, output=tmp_path / "cached", feature_cache=tmp_path / "features")
    uses = []
    trainer = DistillTrainer(cached)
    trainer.callbacks["on_train_epoch_end"].insert(0, lambda t: uses.append(replace(t.wrapper.objective.cache.use)))
    trainer.train()
    assert [(use.n_computed > 0, use.n_read) for use in uses] == [(True, uses[0].n_read), (False, 3)]
    values = [
        [float(row["value"]) for row in csv.DictReader((run.output / "distillation.csv").read_text().splitlines())]
        for run in (job, cached)
    ]
    assert len(values[0]) == 6  # detection, explicit, full in two epochs
    assert values[1] == pytest.approx(values[0], rel=1e-3)
