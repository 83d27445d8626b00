"""Labels written for other tools come back the same: COCO, YOLO-seg, YOLO-obb, LabelMe, Label Studio, CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import label_studio
import numpy as np
import pytest
from label_files import COCO, write_coco, write_picture

from edgekd.data.labels import LabelledSet
from edgekd.data.read import read_labels
from edgekd.data.write import write_dataset
from edgekd.data.write_coco import write_coco as write_coco_set
from edgekd.data.write_tools import COLUMNS, csv_text, label_studio_interface, label_studio_tasks, labelme_content
from edgekd.errors import DataError


@pytest.fixture
def labels(tmp_path: Path) -> LabelledSet:
    """One picture of 64 x 48 with a triangle, a turned box and a box."""
    corners = [[30, 10, 50, 20, 46, 28, 26, 18]]
    turned = {"id": 2, "image_id": 7, "segmentation": corners, "category_id": 4, "area": 200.0}
    box = {"id": 3, "image_id": 7, "category_id": 4, "bbox": [5, 6, 10, 12]}
    return read_labels(write_coco(tmp_path / "in", {"annotations": [COCO["annotations"][0], turned, box]}))


def test_coco_comes_back(labels: LabelledSet, tmp_path: Path) -> None:
    path = write_coco_set(labels, tmp_path / "out", {labels.pictures[0].path: np.array([1, 0.5, 0.25])})
    again = read_labels(path)
    assert again.class_names == labels.class_names
    a, b = labels.pictures[0], again.pictures[0]
    np.testing.assert_allclose(a.xyxy, b.xyxy)
    assert a.class_id.tolist() == b.class_id.tolist() and a.segmentations == b.segmentations
    assert a.area_px.tolist() == b.area_px.tolist()
    scores = [annotation["score"] for annotation in json.loads(path.read_text())["annotations"]]
    assert scores == [1, 0.5, 0.25]
    with pytest.raises(DataError, match="not an empty folder"):
        write_coco_set(labels, tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_turned_boxes_are_read_by_ultralytics(labels: LabelledSet, tmp_path: Path) -> None:
    ultralytics = pytest.importorskip("ultralytics.data.dataset")
    from ultralytics.cfg import get_cfg

    write_dataset({"train": labels, "val": labels}, tmp_path / "out", "turned")
    settings = get_cfg(overrides={"task": "obb"})
    data = {"names": dict(enumerate(labels.class_names)), "nc": 2, "channels": 3}
    loaded = ultralytics.YOLODataset(
        img_path=str(tmp_path / "out" / "images" / "train"), data=data, task="obb", imgsz=64, augment=False,
        hyp=settings, batch_size=1,
    )  # fmt: skip
    found = loaded[0]["bboxes"].numpy()  # centre, sides as fractions of the square input, radians
    expected = labels.pictures[0].oriented_boxes()
    found, expected = found[np.argsort(found[:, 0])], expected[np.argsort(expected[:, 0])]
    np.testing.assert_allclose(found[:, 0] * 64, expected[:, 0], atol=0.3)
    np.testing.assert_allclose(found[:, 2:4].prod(1) * 64**2, expected[:, 2:4].prod(1), rtol=0.05)


def test_outlines_come_back(labels: LabelledSet, tmp_path: Path) -> None:
    write_dataset({"train": labels, "val": labels}, tmp_path / "out", "outline")
    again = read_labels(tmp_path / "out" / "data.yaml").pictures[0]
    for index in range(3):
        np.testing.assert_allclose(again.rings(index)[0], labels.pictures[0].rings(index)[0], atol=1e-4)


def test_labelme(labels: LabelledSet) -> None:
    content = labelme_content(labels.pictures[0])
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("a.jpg", 48, 64)
    ship = content["shapes"][2]
    assert (ship["label"], ship["shape_type"], ship["points"]) == ("ship", "rectangle", [[5, 6], [15, 18]])
    assert content["shapes"][0]["shape_type"] == "polygon" and len(content["shapes"][1]["points"]) == 4
    assert json.loads(json.dumps(content)) == content


def test_labelme_reads_it_itself(labels: LabelledSet, tmp_path: Path) -> None:
    module = pytest.importorskip("labelme._label_file", exc_type=ImportError)
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "a.json").write_text(json.dumps(labelme_content(labels.pictures[0])))
    assert len(module.LabelFile(str(tmp_path / "a.json")).shapes) == 3


def test_label_studio(labels: LabelledSet) -> None:
    (task,) = label_studio_tasks(labels, lambda picture: f"/data/{picture.path.name}")
    results = task["annotations"][0]["result"]
    assert task["data"] == {"image": "/data/a.jpg"} and len(results) == 3
    assert results[2]["type"] == "rectanglelabels"
    box = results[2]["value"]
    assert [box[key] for key in ("x", "y", "width", "height")] == pytest.approx([500 / 64, 12.5, 1000 / 64, 25])
    points = np.array(results[0]["value"]["points"]) / 100 * [64, 48]
    np.testing.assert_allclose(points, labels.pictures[0].rings(0)[0], atol=1e-3)


def test_label_studio_itself_takes_interface_and_tasks(labels: LabelledSet, monkeypatch: pytest.MonkeyPatch) -> None:
    interface_of = label_studio.interface_class(monkeypatch)
    names = (*labels.class_names[:-1], labels.class_names[-1], 'a "quoted" <name>')
    interface = interface_of(label_studio_interface(names))
    interface.validate()
    scores = {picture.path: np.full(len(picture), 0.7) for picture in labels.pictures}
    (drawn,) = label_studio_tasks(labels, lambda picture: "a.jpg")
    (proposed,) = label_studio_tasks(labels, lambda picture: "a.jpg", scores)
    for results in (drawn["annotations"][0], proposed["predictions"][0]):
        assert {each["type"] for each in results["result"]} == {"polygonlabels", "rectanglelabels"}
        assert interface.validate_prediction(results, return_errors=True) == []
        results["result"][0]["from_name"] = "other"
        assert interface.validate_prediction(results, return_errors=True) != []


def test_table(labels: LabelledSet) -> None:
    rows = list(csv.reader(io.StringIO(csv_text(labels))))
    assert tuple(rows[0]) == COLUMNS and len(rows) == 4
    assert rows[3] == ["a.jpg", "64", "48", "ship", "5.0", "6.0", "15.0", "18.0", "120.0", "0", ""]
