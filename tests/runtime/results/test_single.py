"""One result alone: saved by suffix, handed to supervision, filtered, shown short."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_result import small_result

from edgekd.errors import InputError


def test_the_suffix_decides_the_form(tmp_path: Path) -> None:
    result, picture = small_result(), np.zeros((20, 30, 3), np.uint8)
    assert json.loads(result.save(tmp_path / "a.json").read_text())["objects"][0]["class_name"] == "ship"
    assert result.save(str(tmp_path / "a.txt")).read_text().startswith("1 ")
    assert "ship" in result.save(tmp_path / "a.csv").read_text()
    assert cv2.imread(str(result.save(tmp_path / "a.png")), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    assert cv2.imread(str(result.save(tmp_path / "b.png", picture))).shape == (20, 30, 3)
    with pytest.raises(InputError, match="ends in .json"):
        result.save(tmp_path / "a.doc")
    with pytest.raises(InputError, match="the one that was run"):
        result.save(tmp_path / "c.jpg", picture[:5])


def test_supervision_sees_the_same_objects() -> None:
    pytest.importorskip("supervision")
    result = small_result()
    found = result.to_supervision()
    assert len(found) == 2 and found.mask.shape == (2, 20, 30)
    assert found.data["class_name"].tolist() == ["ship", "tank"]
    assert len(result[:0].to_supervision()) == 0


def test_rows_filter_boxes_and_masks_together() -> None:
    result = small_result()
    kept = result[result.masks.areas_px() > 60]
    assert len(kept) == 1 and kept.masks.areas_px().tolist() == [80] and kept.detections.class_id.tolist() == [0]


def test_a_result_shows_itself_on_one_line() -> None:
    result = small_result()
    assert repr(result) == "ChainResult(2 objects: 1 ship, 1 tank; 30x20 px, 1 ms)"
    assert repr(result[:0]) == "ChainResult(0 objects; 30x20 px, 1 ms)"
    assert repr(result.detections) == "Detections(2 boxes)" and repr(result.masks) == "Masks(2 of 30x20 px)"
