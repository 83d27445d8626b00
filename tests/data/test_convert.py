"""Any labels to any form: each comes back through the reader, or has the files that its tool opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from label_files import COCO, write_coco, write_picture

from edgekd.choices import LabelForm
from edgekd.data.convert import TARGETS, convert_labels
from edgekd.data.labels import LabelledSet
from edgekd.data.read import read_labels
from edgekd.errors import DataError


@pytest.fixture
def labels(tmp_path: Path) -> LabelledSet:
    write_picture(tmp_path / "in" / "images" / "b.jpg")
    first, image = COCO["annotations"][0], COCO["images"][0]
    change = {
        "images": [image, {**image, "id": 8, "file_name": "b.jpg"}],
        "annotations": [first, {**first, "id": 2, "image_id": 8}],
    }
    return read_labels(write_coco(tmp_path / "in", change))


def test_the_command_line_knows_every_form() -> None:
    assert get_args(LabelForm) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_form_is_written_once(labels: LabelledSet, tmp_path: Path, target: str) -> None:
    path = convert_labels(labels, target, tmp_path / "out", 0.5)  # type: ignore[arg-type]
    assert path.exists()
    with pytest.raises(DataError, match="not an empty folder"):
        convert_labels(labels, target, tmp_path / "out", 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("target", ["coco", "yolo", "yolo-seg", "yolo-obb"])
def test_our_reader_reads_it_back(labels: LabelledSet, tmp_path: Path, target: str) -> None:
    path = convert_labels(labels, target, tmp_path / "out", 0.5)  # type: ignore[arg-type]
    again = read_labels(path)
    assert again.class_names == labels.class_names and again.pictures[0].class_id.tolist() == [1]
    if target == "yolo-obb":  # the box around the turned box is larger than that around the triangle
        assert len(again.pictures[0].rings(0)[0]) == 4
    else:
        np.testing.assert_allclose(again.pictures[0].xyxy, labels.pictures[0].xyxy, atol=1e-3)


def test_labelme_and_label_studio_have_their_pictures(labels: LabelledSet, tmp_path: Path) -> None:
    convert_labels(labels, "labelme", tmp_path / "me")
    assert sorted(path.name for path in (tmp_path / "me").iterdir()) == ["a.jpg", "a.json", "b.jpg", "b.json"]
    tasks = json.loads(convert_labels(labels, "label-studio", tmp_path / "studio").read_text())
    names = [task["data"]["image"].removeprefix("/data/local-files/?d=") for task in tasks]
    assert all((tmp_path / "studio" / name).is_file() for name in names)


def test_one_name_for_two_pictures_is_refused(labels: LabelledSet, tmp_path: Path) -> None:
    twice = LabelledSet(labels.source, labels.class_names, labels.pictures * 2)
    for target in ("coco", "labelme", "label-studio"):
        with pytest.raises(DataError, match="rename one"):
            convert_labels(twice, target, tmp_path / target)  # type: ignore[arg-type]
