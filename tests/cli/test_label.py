"""`edgekd label` and `edgekd run --boxes` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.cli.main import app
from edgekd.errors import EdgekdError


@pytest.fixture
def boxes(tmp_path: Path, scene: np.ndarray) -> Path:
    """Two cuts of the demonstration picture with a box each."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for index, left in enumerate((0, 320)):
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), scene[:320, left : left + 320])
        images.append({"id": index, "file_name": f"{index}.png", "width": 320, "height": 320})
        annotations.append({"id": index, "image_id": index, "category_id": 5, "bbox": [60, 60, 160, 160]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 5, "name": "own class"}]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    return tmp_path / "boxes.json"


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=True)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_boxes_become_a_data_set(shipped_bundle: Path, boxes: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = call("label", shipped_bundle, "--boxes", boxes, "--drop", 0, "-o", out, "--json", tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["n_accepted"] + report["n_to_look_at"] == 2 and "boxes outside" in printed
    content = json.loads((out / "annotations.json").read_text())
    assert content["categories"] == [{"id": 1, "name": "own class"}]
    assert (out / "data.yaml").is_file() and (out / "tasks.json").is_file()


def test_given_boxes_are_run_with_their_classes(shipped_bundle: Path, boxes: Path, tmp_path: Path) -> None:
    printed = call("run", shipped_bundle, boxes.parent / "images", "--boxes", boxes, "-o", tmp_path / "out")
    assert printed.count("own class") == 2
    found = json.loads((tmp_path / "out" / "results.json").read_text())["pictures"]
    assert [entry["objects"][0]["class_name"] for entry in found] == ["own class"] * 2


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    for arguments, words in (
        ((), "no picture was given"),
        ((tmp_path, tmp_path, "--boxes", tmp_path), "at most|one at most"),
        ((tmp_path, "--accept", 0.2, "--drop", 0.4), "expected 0 <= drop <= accept"),
    ):
        with pytest.raises(EdgekdError, match=words):
            call("label", tmp_path / "none", *arguments, "-o", tmp_path / "out")
