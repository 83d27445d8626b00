"""The crop segmenter learns: crops follow their objects, a short run gets better, a run cut in two equals one run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from crop_nets import tiny_net, tiny_task
from segmentation_scenes import scenes, write_scenes

from edgekd.data.labels import LabelledPicture, draw_mask
from edgekd.errors import DataError, InputError, Interrupted
from edgekd.models.crop_segmenter import WINDOW_FACTOR, load_crop_segmenter
from edgekd.runtime.oriented import corners_of, enclosing
from edgekd.train.finetune.crop import crop_config, predict_objects, turned_around_mask
from edgekd.train.finetune.crop_data import Augmentation, CropObject, PictureStore, crop_objects, draw_batch
from edgekd.train.finetune.job import FinetuneJob, run_job
from edgekd.train.finetune.loop import finetune, with_arithmetic

PLAIN = Augmentation(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def test_a_mask_moves_with_its_picture(tmp_path: Path) -> None:
    objects = crop_objects(scenes(tmp_path, 2), PictureStore())
    rng = np.random.default_rng(0)
    for how in (PLAIN, replace(PLAIN, free_rotation=1.0)):
        batch = draw_batch(objects, 64, 4, rng, how)
        bright = batch.crops.max(axis=3) > 75  # shapes are bright on dark noise
        overlap = (bright & (batch.masks > 127)).sum() / (bright | (batch.masks > 127)).sum()
        assert overlap > 0.95
        rows = np.flatnonzero((batch.masks[0] > 127).any(axis=1))
        assert abs((rows[-1] - rows[0] + 1) - 64 / WINDOW_FACTOR) <= 2  # the box fills its share of the crop


def stick(folder: Path, angle: float) -> list[CropObject]:
    """One bright bar of 60 x 24 px, turned by an angle, as an object to learn from."""
    quad = corners_of(np.array([[60, 50, 60, 24, angle]]))[0]
    mask = draw_mask([quad.astype(np.float32)], (100, 120))
    picture = np.repeat(mask[:, :, None] * 200, 3, 2).astype(np.uint8)
    cv2.imwrite(str(folder / "stick.png"), picture)
    sample = LabelledPicture(
        folder / "stick.png", (100, 120), enclosing(quad[None]), np.zeros(1, np.int32), np.array([1440.0]),
        np.zeros(1, np.bool_), ([quad.ravel().tolist()],), ("stick",),
    )  # fmt: skip
    return crop_objects([sample], PictureStore())


@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, -0.6])
def test_crops_for_an_oriented_detector_are_those_that_the_runtime_cuts(tmp_path: Path, angle: float) -> None:
    """Turned with the object and filled by it, whatever its angle; crops of upright boxes hold more background."""
    objects, rng = stick(tmp_path, angle), np.random.default_rng(0)
    shares = {True: [], False: []}
    for turned, found in shares.items():
        for _ in range(8):
            batch = draw_batch(objects, 64, 1, rng, replace(PLAIN, turned=turned, turn_jitter=0.0))
            found.append((batch.masks[0] > 127).mean() * WINDOW_FACTOR**2)
    assert min(shares[True]) > 0.9
    assert angle == 0 or max(shares[False]) < 0.75
    truth = draw_mask([corners_of(np.array([[60, 50, 60, 24, angle]]))[0].astype(np.float32)], (100, 120))
    (_, _), sides, _ = cv2.minAreaRect(turned_around_mask(truth))
    assert sorted(sides) == pytest.approx([24, 60], abs=1.6)


def test_a_job_for_an_oriented_detector(tmp_path: Path) -> None:
    report = run_job(job(tmp_path, oriented=True), lambda stage, step, losses: None, lambda line: None)
    assert 0 < report["stages"][-1]["quality"]["box"]["miou"] < 1
    with pytest.raises(InputError, match="oriented is set and the model is tinysam"):
        run_job(job(tmp_path, oriented=True, model="tinysam"), lambda stage, step, losses: None, print)


def test_batches_depend_on_the_generator_alone(tmp_path: Path) -> None:
    objects = crop_objects(scenes(tmp_path, 3), PictureStore(max_bytes=0))
    first, second = (draw_batch(objects, 32, 4, np.random.default_rng(5), Augmentation()) for _ in range(2))
    assert np.array_equal(first.crops, second.crops) and np.array_equal(first.masks, second.masks)
    other = draw_batch(objects, 32, 99, np.random.default_rng(6), Augmentation())
    assert len(other.crops) == len(objects)  # every object once, never twice


def test_trust_in_a_mask_becomes_its_weight(tmp_path: Path) -> None:
    pictures = scenes(tmp_path, 2)
    trust = [np.full(len(p), 0.25 * (row + 1), np.float32) for row, p in enumerate(pictures)]
    assert [item.weight for item in crop_objects(pictures, PictureStore(), trust)] == [0.25, 0.25, 0.5, 0.5]


def test_a_short_run_learns_and_can_be_used(tmp_path: Path) -> None:
    task = tiny_task(tmp_path, detail_weight=0.1)
    config = replace(crop_config(60, 0), warmup_steps=5, ema_decay=0.8)
    report = finetune(task, config, tmp_path / "run")
    before, after = (stage["quality"]["box"]["miou"] for stage in report["stages"])
    assert after > max(before, 0.8), report["stages"]
    net = load_crop_segmenter(tmp_path / "run" / "best.pt")
    masks = list(predict_objects(net, scenes(tmp_path, 1)[0]))
    assert len(masks) == 2 and all(mask.iou > 0.7 for mask in masks)


def test_a_run_cut_in_two_equals_one_run(tmp_path: Path) -> None:
    config = replace(crop_config(6, 0), save_every=2)
    finetune(tiny_task(tmp_path), config, tmp_path / "whole")

    def stop(stage: object, step: int, losses: object) -> None:
        if step == 2:
            raise Interrupted("stopped")

    with pytest.raises(Interrupted):
        finetune(tiny_task(tmp_path), config, tmp_path / "cut", on_step=stop)
    finetune(tiny_task(tmp_path), config, tmp_path / "cut", resume=True)
    whole, cut = (torch.load(tmp_path / n / "best.pt", weights_only=True)["state"] for n in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def job(folder: Path, **changes: object) -> FinetuneJob:
    data = write_scenes(folder, 4)
    known = FinetuneJob(
        model="crop",
        data=data,
        output=folder / "run",
        config=crop_config(2, 0),
        images=folder,
        imgsz=32,
        batch=4,
        size="S",
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def test_a_job_from_polygons(tmp_path: Path) -> None:
    report = run_job(job(tmp_path), lambda stage, step, losses: None, lambda line: None)
    assert set(report["stages"][-1]["quality"]["box"]["by_class"]) == {"disc", "square"}
    assert json.loads((tmp_path / "run" / "report.json").read_text())["model"] == "crop segmenter"
    assert (tmp_path / "run" / "curves.png").is_file()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": "XL"}, "size is 'XL', expected S, M, L"), ({"imgsz": 40}, "multiple of 16"),
        ({"adapter_rank": 4}, "adapter_rank cannot be chosen"),
    ],
)  # fmt: skip
def test_impossible_jobs_are_one_sentence(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_job(job(tmp_path, **changes), lambda stage, step, losses: None, lambda line: None)


def boxes_only(path: Path) -> Path:
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        points = np.array(annotation.pop("segmentation")).reshape(-1, 2)
        low, high = points.min(axis=0), points.max(axis=0)
        annotation["bbox"] = [*low.tolist(), *(high - low).tolist()]
    path.write_text(json.dumps(content))
    return path


def test_boxes_without_a_teacher_are_refused(tmp_path: Path) -> None:
    order = job(tmp_path)
    boxes_only(order.data)
    with pytest.raises(DataError, match="has no polygon"):
        run_job(order, lambda stage, step, losses: None, lambda line: None)


def test_a_teacher_draws_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order = job(tmp_path, teacher=tmp_path / "bundle")
    boxes_only(order.data)
    monkeypatch.setattr("edgekd.train.finetune.crop_job.open_teacher", lambda folder: FilledBoxes())
    report = run_job(order, lambda stage, step, losses: None, lambda line: None)
    assert set(report["stages"][-1]["quality"]) == {"box, masks of the teacher"}


def test_a_teacher_leaves_labelled_masks_alone(tmp_path: Path) -> None:
    from edgekd.train.finetune.crop_teacher import teach

    picture = scenes(tmp_path, 1)[0]
    half = replace(picture, segmentations=(picture.segmentations[0], None))
    taught = teach([half], FilledBoxes())  # type: ignore[arg-type]
    assert taught.n_drawn == 1
    assert taught.pictures[0].segmentations[0] == picture.segmentations[0]
    np.testing.assert_allclose(taught.weights[0], [1.0, 0.5])
    left, top, right, bottom = picture.xyxy[1].round().astype(int)
    assert taught.pictures[0].mask(1)[top:bottom, left:right].mean() > 0.95


class FilledBoxes:
    """A teacher that fills every box and half believes it."""

    def __enter__(self) -> FilledBoxes:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __call__(self, picture: np.ndarray, boxes: np.ndarray):  # type: ignore[no-untyped-def]
        from types import SimpleNamespace

        from edgekd.types import Masks

        windows = boxes.round().astype(np.int32)
        crops = [np.ones((b - t, r - x), np.bool_) for x, t, r, b in windows.tolist()]
        return SimpleNamespace(masks=Masks(picture.shape[:2], windows, crops, np.full(len(boxes), 0.5, np.float32)))


def test_the_store_decodes_again_beyond_its_limit(tmp_path: Path) -> None:
    picture = scenes(tmp_path, 1)[0]
    held, free = PictureStore(), PictureStore(max_bytes=10)
    assert held(picture)[0] is held(picture)[0] and free(picture)[0] is not free(picture)[0]
    assert np.array_equal(held(picture)[2], free(picture)[2]) and held(picture)[2].shape == (32, 32, 3)


def test_the_network_is_judged_on_true_boxes(tmp_path: Path) -> None:
    found = list(predict_objects(tiny_net(), scenes(tmp_path, 1)[0]))
    assert [mask.class_name for mask in found] == ["disc", "square"]
    assert all(0 <= mask.predicted_iou <= 1 for mask in found)


@pytest.mark.parametrize("chosen", [None, True, False])
@pytest.mark.parametrize("has", [True, False])
def test_bf16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, chosen: bool | None, has: bool) -> None:
    monkeypatch.setattr("edgekd.train.finetune.loop.has_bf16", lambda: has)
    config = with_arithmetic(replace(crop_config(1, 0), amp=chosen), torch.device("cpu"))
    assert config.amp is (has if chosen is None else chosen)
