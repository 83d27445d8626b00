"""The newcomer's page is what its benchmark runs, and both parts of its training keep the same pictures aside."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).parent.parent.parent


def test_the_steps_of_the_page_are_run_as_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import bench_newcomer

    page = (ROOT / "docs/own-classes.md").read_text()
    steps = bench_newcomer.steps_of(page, {})
    assert list(steps) == [
        "install", "labels", "detector", "segmenter", "export and build", "evaluate", "run and bench",
    ]  # fmt: skip
    assert all(commands in page for commands in steps.values())
    tiny = bench_newcomer.steps_of(page, {"epochs": 1, "steps": 20})
    assert "--epochs 1 --imgsz 512 " in tiny["detector"] and "--steps 20 " in tiny["segmenter"]
    assert {name for name in steps if steps[name] != tiny[name]} == {"detector", "segmenter"}
    sys.modules.pop("bench_newcomer")


def test_detector_and_segmenter_keep_the_same_pictures_for_validation(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from edgekd.data.coco import read_coco
    from edgekd.data.published import split_pictures
    from edgekd.train.finetune.job import FinetuneJob, config_for, split_samples

    (tmp_path / "images").mkdir()
    ring = [[1, 1, 9, 1, 9, 9, 1, 9]]
    each = {"category_id": 1, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": 0, "segmentation": ring}
    names = [f"{number}.png" for number in range(11)]
    for name in names:
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((16, 16, 3), np.uint8))
    images = [{"id": i, "file_name": name, "width": 16, "height": 16} for i, name in enumerate(names)]
    content = {"images": images, "categories": [{"id": 1, "name": "ship"}]}
    content["annotations"] = [each | {"id": i, "image_id": i} for i in range(len(names))]
    (tmp_path / "a.json").write_text(json.dumps(content))
    labels = read_coco(tmp_path / "a.json")
    config = config_for("crop", None, None, None, 0, False)
    job = FinetuneJob(model="crop", data=tmp_path / "a.json", output=tmp_path / "o", config=config)
    _, validation = split_samples(labels.pictures, job)
    expected = split_pictures(labels, 0.2, 0)["val"].pictures
    assert {picture.path.name for picture in validation} == {picture.path.name for picture in expected}
