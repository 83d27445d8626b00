"""Turned boxes in every format: read back by Ultralytics, pycocotools, shapely; DOTA's tiles merged."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekd.data.yolo import read_yolo
from edgekd.errors import InputError
from edgekd.runtime.oriented import boxes_of, corners_of, enclosing, turned_ious
from edgekd.runtime.results.dota import merge_run, submission_names
from edgekd.runtime.results.draw import overlay
from edgekd.runtime.results.formats import geojson
from edgekd.runtime.results.single import supervision_detections
from edgekd.runtime.results.writer import Format, ResultOptions, ResultWriter
from edgekd.runtime.segment import empty_masks
from edgekd.runtime.sources import Frame
from edgekd.types import ChainResult, Detections, Masks

NAMES = ("plane", "large vehicle")
SIZE = (120, 200)
BOXES = np.array([[60, 60, 80, 20, 0.4], [150, 50, 30, 12, 2.0], [195, 100, 40, 10, 0.0]])


def turned_result(boxes: np.ndarray = BOXES, masks: bool = False) -> ChainResult:
    corners = corners_of(boxes).astype(np.float32)
    n = len(boxes)
    xyxy = enclosing(corners).clip(0, np.array([*SIZE[::-1]] * 2, np.float32))
    found = Detections(xyxy, np.linspace(0.9, 0.5, n).astype(np.float32), (np.arange(n) % 2).astype(np.int32), corners)
    if not masks:
        return ChainResult(found, empty_masks(SIZE, n), NAMES)
    windows = np.array([[50, 50, 70, 60]] * n, np.int32)
    return ChainResult(found, Masks(SIZE, windows, [np.ones((10, 20), bool)] * n, np.ones(n, np.float32)), NAMES)


def write(folder: Path, formats: tuple[Format, ...], results: dict[str, ChainResult] | None = None) -> None:
    options = ResultOptions(masks=False, boxes_only=True, oriented=True, formats=formats)
    pictures = folder.parent / "images"
    pictures.mkdir(exist_ok=True)
    with ResultWriter(folder, NAMES, options) as writer:
        for name, result in (results or {"a": turned_result()}).items():
            pixels = np.zeros((*SIZE, 3), np.uint8)
            cv2.imwrite(str(pictures / f"{name}.png"), pixels)
            writer.add(Frame(name, pictures / f"{name}.png", pixels), result)


def test_json_csv_and_coco_hold_the_corners(tmp_path: Path) -> None:
    write(tmp_path / "out", ("csv", "coco"))
    found = json.loads((tmp_path / "out/results.json").read_text())["pictures"][0]["objects"]
    np.testing.assert_allclose([one["corners"] for one in found], corners_of(BOXES), atol=0.01)
    rows = list(csv.DictReader((tmp_path / "out/results.csv").read_text().splitlines()))
    assert float(rows[1]["corner3_y_px"]) == pytest.approx(corners_of(BOXES)[1, 2, 1], abs=0.01)
    coco = pytest.importorskip("pycocotools.coco").COCO(str(tmp_path / "out/coco.json"))
    from pycocotools.mask import area as area_of

    area = float(area_of(coco.annToRLE(coco.loadAnns([1])[0])))
    assert area == pytest.approx(80 * 20, rel=0.05)


def test_yolo_obb_labels_are_read_by_ultralytics_and_by_edgekd(tmp_path: Path) -> None:
    write(tmp_path / "out", ("yolo-obb",))
    label = tmp_path / "out/labels/a.txt"
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text(label.read_text())
    picture = read_yolo(tmp_path).pictures[0]
    ious = turned_ious(np.stack([picture.turned_corners(index) for index in range(3)]), corners_of(BOXES)).diagonal()
    assert ious[:2].min() > 0.999 and ious[2] == pytest.approx(25 / 40, abs=0.01)  # the last one leaves the picture
    verify = pytest.importorskip("ultralytics.data.utils").verify_image_label
    arguments = (str(tmp_path / "images/a.png"), str(tmp_path / "labels/a.txt"), "", False, 2, 0, 0, False)
    _, boxes, _, segments, _, _, n_found, _, n_corrupt, message = verify(arguments)
    assert (n_found, n_corrupt, len(boxes), len(segments)) == (1, 0, 3, 3), message


def test_dota_submission_has_a_file_per_class(tmp_path: Path) -> None:
    write(tmp_path / "out", ("dota",))
    lines = (tmp_path / "out/Task1_plane.txt").read_text().splitlines()
    assert len(lines) == 2 and lines[0].split()[:2] == ["a", "0.90000"]
    np.testing.assert_allclose(np.array(lines[0].split()[2:], float).reshape(4, 2), corners_of(BOXES)[0], atol=0.01)
    assert len((tmp_path / "out/Task1_large-vehicle.txt").read_text().splitlines()) == 1
    with pytest.raises(InputError, match="two classes"):
        submission_names(["a b", "a-b"])


def test_tiles_of_a_run_are_merged_into_pictures(tmp_path: Path) -> None:
    shifted = BOXES[:2] - np.array([40, 30, 0, 0, 0])  # the same objects, seen by a tile that begins at (140, 230)
    results = {
        "P1__200__100___200": turned_result(BOXES[:2]),
        "P1__200__140___230": turned_result(shifted + np.array([0.5, 0.5, 0, 0, 0.01])),
        "P2": turned_result(BOXES[:1]),
    }
    write(tmp_path / "out", (), results)
    assert merge_run(tmp_path / "out", tmp_path / "merged") == (2, 3)
    lines = [line.split() for line in (tmp_path / "merged/Task1_plane.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["P1", "P2"]
    box = boxes_of(np.array(lines[0][2:], float).reshape(1, 4, 2))[0]
    np.testing.assert_allclose(box[:2], BOXES[0, :2] + [100, 200], atol=0.02)
    with pytest.raises(InputError, match="results.jsonl"):
        merge_run(tmp_path / "nothing", tmp_path / "merged")


def test_formats_of_turned_boxes_are_refused_for_upright_ones(tmp_path: Path) -> None:
    for formats, oriented, words in ((("dota",), False, "upright"), (("yolo", "yolo-obb"), True, "one of them")):
        with pytest.raises(InputError, match=words):
            ResultWriter(tmp_path / "out", NAMES, ResultOptions(oriented=oriented, formats=formats))
    assert not (tmp_path / "out").exists()


def test_overlay_draws_the_turned_box() -> None:
    drawn = overlay(np.zeros((*SIZE, 3), np.uint8), turned_result(BOXES[:1]))
    left, top, right, bottom = turned_result(BOXES[:1]).detections.xyxy[0].round().astype(int)
    assert not drawn[bottom - 2, left : left + 10].any()  # a corner of the enclosing box is empty
    x, y = corners_of(BOXES)[0, :2].mean(0).round().astype(int)
    assert drawn[y - 1 : y + 2, x - 1 : x + 2].any()


def test_geojson_is_the_turned_box_without_masks_and_a_property_beside_them() -> None:
    transform = (2.0, 0.0, 1000.0, 0.0, -2.0, 5000.0)
    expected = corners_of(BOXES)[0] * [2, -2] + [1000, 5000]
    alone = geojson(turned_result(BOXES[:1]), transform, None)["features"][0]
    ring = np.array(alone["geometry"]["coordinates"][0][0])
    assert len(ring) == 5 and {tuple(p) for p in ring.round(1)} == {tuple(p) for p in expected.round(1)}
    beside = geojson(turned_result(BOXES[:1], masks=True), transform, None)["features"][0]
    assert len(beside["geometry"]["coordinates"][0][0]) == 5 and len(beside["properties"]["corners"]) == 4


def test_supervision_draws_the_corners() -> None:
    pytest.importorskip("supervision")
    result = turned_result()
    found = supervision_detections(replace(result, masks=turned_result(masks=True).masks))
    np.testing.assert_array_equal(found.data["xyxyxyxy"], result.detections.corners)
    assert math.isclose(found.xyxy[0, 0], result.detections.xyxy[0, 0], abs_tol=1e-4)
