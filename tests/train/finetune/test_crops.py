"""Polygons, crops, prompts and mask scores: geometry that must hold, and files that must be refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from segmentation_scenes import scenes

from edgekd.errors import DataError
from edgekd.train.finetune.crops import (
    CropRecipe,
    draw_crop,
    tight_box,
    whole_frame,
)
from edgekd.train.finetune.prompts import PROMPT_KINDS, draw_prompts
from edgekd.train.finetune.quality import (
    BASELINES,
    ObjectMask,
    baseline_objects,
    inner_point,
    score,
    summarise,
    to_picture,
)

SPLIT = Path(__file__).parents[3] / "edgekd" / "data" / "splits" / "nwpu_seed0.json"


def test_the_recorded_split_is_what_its_rule_says() -> None:
    import random

    split = json.loads(SPLIT.read_text())
    names = sorted(split["train"] + split["validation"])
    assert len(names) == len(set(names)) == 520 and len(split["validation"]) == 104
    random.Random(split["seed"]).shuffle(names)
    assert sorted(names[:104]) == split["validation"]


def test_a_truncated_picture_is_refused(tmp_path: Path) -> None:
    samples = scenes(tmp_path)
    samples[0].path.write_bytes(b"\x89PNG cut")
    with pytest.raises(DataError, match="not a picture"):
        whole_frame(samples[0], 128)


def test_crops_hold_their_objects(tmp_path: Path) -> None:
    recipe, rng, n_seen = CropRecipe(side_px=96, frames_px=((128, 0.5), (256, 0.5))), np.random.default_rng(0), 0
    for sample in scenes(tmp_path) * 5:
        crop = draw_crop(sample, recipe, rng)
        if crop is None:
            continue
        n_seen += 1
        assert crop.image.shape == (3, 96, 96) and crop.image.dtype == np.float32
        assert 0 <= crop.origin_px[0] <= crop.frame_px - 96
        for mask, box in zip(crop.masks, crop.boxes, strict=True):
            assert tight_box(mask) == tuple(box)
            # The shapes are bright on dark, so the mask must lie where the picture is bright.
            assert crop.image[:, mask > 0].mean() > crop.image[:, mask == 0].mean() + 0.3
    assert n_seen > 10


def test_the_whole_frame_keeps_masks_on_their_objects(tmp_path: Path) -> None:
    sample = scenes(tmp_path)[0]
    frame = whole_frame(sample, 200)
    assert frame.image.shape == (3, 224, 224) and frame.frame_px == 224
    assert (frame.image[:, 200:] == 0).all() and not frame.masks[:, 200:].any()
    assert frame.image[:, frame.masks.any(axis=0)].mean() > frame.image[:, :200, :200].mean() + 0.5


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_prompts_point_at_their_objects(tmp_path: Path, kind: str) -> None:
    frame = whole_frame(scenes(tmp_path)[0], 128)
    coords, labels = draw_prompts(kind, frame.masks, frame.boxes, np.random.default_rng(0), noise=0.0)  # type: ignore[arg-type]
    assert labels.shape == coords.shape[:2]
    for mask, point, label in zip(frame.masks, coords.numpy(), labels.tolist(), strict=True):
        for (x, y), kind_of_point in zip(point, label, strict=True):
            if kind_of_point == 1:
                assert mask[int(y), int(x)]
        assert label == {"box": [2, 3], "box+centre": [2, 3, 1], "point": [1, -1]}[kind]


def test_low_resolution_logits_return_to_the_picture(tmp_path: Path) -> None:
    sample = scenes(tmp_path, n=1)[0]
    frame = whole_frame(sample, 256)
    for index, mask in enumerate(frame.masks):
        low_res = cv2.resize(mask.astype(np.float32), None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA) - 0.5
        truth = sample.mask(index) > 0
        back = to_picture(low_res, sample.size_px, np.array([2.0, 2.0], np.float32))
        assert ObjectMask("", truth, back, 0.0).iou > 0.94


def test_a_point_is_inside_even_a_ring() -> None:
    ring = np.zeros((64, 64), np.uint8)
    cv2.circle(ring, (32, 32), 20, 1, 6)
    x, y = inner_point(ring, np.array(tight_box(ring), np.float32))
    assert ring[int(y), int(x)] == 1


def test_baselines_score_what_geometry_says(tmp_path: Path) -> None:
    samples = scenes(tmp_path, n=1)
    for baseline in BASELINES:
        scores = {s.class_name: s.iou for s in score(baseline_objects(samples[0], baseline))}
        if baseline == "box fill":
            assert scores["square"] == 1 and scores["disc"] == pytest.approx(np.pi / 4, abs=0.06)
        if baseline == "ellipse":
            assert scores["disc"] > 0.9 and scores["square"] == pytest.approx(np.pi / 4, abs=0.06)
        if baseline == "grabcut":
            assert min(scores.values()) > 0.8
    summary = summarise(score(baseline_objects(samples[0], "box fill")))
    assert summary["n_objects"] == 2 and summary["n_by_size"] == {"small": 1, "medium": 1, "large": 0}
