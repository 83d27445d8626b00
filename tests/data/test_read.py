"""Labels are read as they are written, and refused in one sentence when they cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekd.data.read import read_labelled_set
from edgekd.errors import DataError

COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 9,
            "bbox": [10, 20, 30, 10],
            "area": 150.0,
            "iscrowd": 0,
            "segmentation": [[10, 20, 40, 20, 40, 30]],
        }
    ],
    "categories": [{"id": 4, "name": "ship"}, {"id": 9, "name": "storage_tank"}],
}


def write_picture(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def write_coco(folder: Path, change: dict[str, Any] | None = None) -> Path:
    write_picture(folder / "images" / "a.jpg")
    path = folder / "labels.json"
    path.write_text(json.dumps({**COCO, **(change or {})}))
    return path


def write_yolo(folder: Path, line: str) -> Path:
    write_picture(folder / "images" / "val" / "a.jpg")
    (folder / "labels" / "val").mkdir(parents=True)
    (folder / "labels" / "val" / "a.txt").write_text(line)
    path = folder / "data.yaml"
    path.write_text("path: .\nval: images/val\nnames: {0: ship, 1: storage_tank}\n")
    return path


def test_coco_boxes_become_xyxy_and_classes_become_positions(tmp_path: Path) -> None:
    labels = read_labelled_set(write_coco(tmp_path))
    (picture,) = labels.pictures
    assert labels.class_names == ("ship", "storage_tank")
    assert labels.has_masks
    assert picture.path == tmp_path / "images" / "a.jpg"
    assert picture.size_px == (48, 64)
    np.testing.assert_array_equal(picture.xyxy, [[10, 20, 40, 30]])
    assert picture.class_id.tolist() == [1]
    assert picture.area_px.tolist() == [150.0]


def test_yolo_box_and_polygon_become_pixels(tmp_path: Path) -> None:
    box = read_labelled_set(write_yolo(tmp_path / "box", "1 0.5 0.5 0.25 0.5\n"))
    np.testing.assert_allclose(box.pictures[0].xyxy, [[24, 12, 40, 36]])
    assert not box.has_masks
    ring = read_labelled_set(write_yolo(tmp_path / "ring", "0 0.25 0.25 0.75 0.25 0.75 0.75\n"))
    np.testing.assert_allclose(ring.pictures[0].xyxy, [[16, 12, 48, 36]])
    assert ring.pictures[0].area_px.tolist() == [pytest.approx(32 * 24 / 2)]
    assert ring.has_masks


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"categories": [{"id": 4, "name": "ship"}]}, "uses category 9"),
        ({"images": [{"id": 7, "file_name": "../../a.jpg", "width": 64, "height": 48}]}, "correct the labels"),
        ({"images": [{"id": 7, "file_name": "b.jpg", "width": 64, "height": 48}]}, "do not exist"),
        ({"images": 3}, "no COCO instance file"),
        ({"annotations": []}, "labels no object"),
        ({"annotations": [{**COCO["annotations"][0], "bbox": [1, 2, -3, 4]}]}, "negative"),
        ({"annotations": [{**COCO["annotations"][0], "image_id": 8}]}, "no COCO instance file"),
    ],
)
def test_damaged_coco_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labelled_set(write_coco(tmp_path, change))


@pytest.mark.parametrize(
    ("line", "words"),
    [("2 0.5 0.5 0.1 0.1", "has class 2"), ("0 0.5 0.5 0.1", "no YOLO label"), ("0 0.5 nan 0.1 0.1", "no YOLO label"),
     ("0 5 5 1 1", "no YOLO label"), ("", "labels no object")],
)  # fmt: skip
def test_damaged_yolo_is_refused(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labelled_set(write_yolo(tmp_path, line))


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_labelled_set(tmp_path / "none.json")
    (tmp_path / "labels.txt").touch()
    with pytest.raises(DataError, match="neither"):
        read_labelled_set(tmp_path / "labels.txt")
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(DataError, match="no COCO instance file"):
        read_labelled_set(tmp_path / "cut.json")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(DataError, match="no Ultralytics data file"):
        read_labelled_set(tmp_path / "code.yaml")
