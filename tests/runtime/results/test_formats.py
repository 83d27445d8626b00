"""Every format is read back by the library that owns it and says the same."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_result import small_result

from edgekd.errors import InputError
from edgekd.runtime.results import maps
from edgekd.runtime.results.formats import csv_text, geojson, label_map, objects_json, yolo_lines
from edgekd.runtime.results.tables import read_coco_ids
from edgekd.runtime.windows import Georeference

PLACE = (2.0, 0.0, 1000.0, 0.0, -2.0, 500.0)


def test_objects_are_json() -> None:
    first = json.loads(json.dumps(objects_json(small_result())))[0]
    assert first["class_name"] == "ship" and first["area_px"] == 60
    assert first["xyxy"] == [2, 3, 12, 9]
    assert first["mask"]["size"] == [20, 30]


def test_boxes_alone_say_nothing_of_masks() -> None:
    objects = objects_json(small_result(), masks=False)
    assert set(objects[0]) == {"class_name", "class_id", "confidence", "xyxy"}
    row = csv_text([{"name": "x", "source": "x.jpg", "frame": None, "objects": objects}], header=False).splitlines()[0]
    assert row == "x,x.jpg,,ship,1,0.9,2.0,3.0,12.0,9.0,,"


def test_the_more_confident_object_owns_a_pixel() -> None:
    labels = label_map(small_result())
    assert (labels[5, 11], labels[12, 17], labels[0, 0]) == (1, 2, 0)


def test_csv_is_read_back_whatever_the_names() -> None:
    result = small_result(('a "tank", large', "ship"))
    text = csv_text([{"name": "x", "source": "a,b.jpg", "frame": None, "objects": objects_json(result)}])
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["class_name"] for row in rows] == ["ship", 'a "tank", large']
    assert rows[0]["source"] == "a,b.jpg" and float(rows[0]["right_px"]) == 12


def test_yolo_labels_draw_the_same_masks() -> None:
    result = small_result()
    for index, line in enumerate(yolo_lines(result).splitlines()):
        numbers = [float(word) for word in line.split()]
        assert numbers[0] == result.detections.class_id[index]
        corners = np.array(numbers[1:]).reshape(-1, 2) * (30, 20)
        assert cv2.contourArea(corners.astype(np.float32)) == pytest.approx(result.masks.areas_px()[index], abs=0.01)
    boxes = yolo_lines(result, masks=False).splitlines()
    assert boxes[0].split()[0] == "1"
    assert [float(word) for word in boxes[0].split()[1:]] == pytest.approx([7 / 30, 6 / 20, 10 / 30, 6 / 20], abs=1e-5)


def test_geojson_follows_the_transform_along_pixel_edges() -> None:
    collection = geojson(small_result(), PLACE, "EPSG:32633")
    ring = np.array(collection["features"][0]["geometry"]["coordinates"][0][0])
    assert ring[0].tolist() == ring[-1].tolist()
    assert (ring[:, 0].min(), ring[:, 0].max()) == (1004, 1024)
    assert (ring[:, 1].max(), ring[:, 1].min()) == (494, 482)
    assert collection["crs"]["properties"]["name"] == "EPSG:32633"


def test_geopackage_is_read_back_with_its_area(tmp_path: Path) -> None:
    pyogrio = pytest.importorskip("pyogrio")
    shapely = pytest.importorskip("shapely")
    maps.write_maps(tmp_path / "a", small_result(), Georeference(PLACE, "EPSG:32633"), {"geojson", "gpkg"})
    for name in ("a.geojson", "a.gpkg"):
        facts, _, shapes, fields = pyogrio.raw.read(tmp_path / name)
        assert "32633" in facts["crs"]
        assert [shapely.from_wkb(shape).area for shape in shapes] == [60 * 4, 80 * 4]
        assert list(fields[list(facts["fields"]).index("class_name")]) == ["ship", "tank"]


def test_a_number_without_end_is_no_number_of_a_picture(tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text('{"images": [{"file_name": "a.png", "id": Infinity}], "categories": []}')
    with pytest.raises(InputError, match="not a COCO file"):
        read_coco_ids(tmp_path / "ids.json")
