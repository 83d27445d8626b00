"""Boxes of labels as a chain takes them: clipped, of every format, what is left out is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from label_files import COCO, write_coco, write_yolo

from edgekd.data.given_boxes import read_boxes


def test_boxes_are_clipped_and_the_rest_is_counted(tmp_path: Path) -> None:
    first = COCO["annotations"][0]
    rows = [[50, 30, 30, 30], [70, 10, 5, 5], [1, 1, 0, 9]]
    plain = [{"id": 2 + i, "image_id": 7, "category_id": 4, "bbox": row} for i, row in enumerate(rows)]
    path = write_coco(tmp_path, {"annotations": [first, *plain, {**first, "id": 9, "iscrowd": 1}]})
    given, n_left_out = read_boxes(path, None)
    boxes = given.by_picture[(tmp_path / "images" / "a.jpg").resolve()]
    np.testing.assert_array_equal(boxes.xyxy, [[10, 20, 40, 30], [50, 30, 64, 48]])
    assert boxes.class_id.tolist() == [1, 0] and n_left_out == 3


def test_all_parts_of_a_data_file_are_taken(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, "0 .5 .5 .5 .5")
    path.write_text(path.read_text() + "train: images/val\n")
    given, n_left_out = read_boxes(path, None)
    assert len(given.by_picture) == 1 and n_left_out == 0 and given.class_names == ("ship", "storage_tank")
