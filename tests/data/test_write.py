"""Data sets: what goes in comes out where it was, and what is wrong is named with file and line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny_data import write_tiny_dataset

from edgekd.data.check import check_dataset
from edgekd.data.coco import read_coco
from edgekd.data.published import DIOR_CLASSES, convert_dota, read_dior, read_nwpu, split_pictures
from edgekd.data.write import write_dataset
from edgekd.data.yolo import label_of, read_label_lines
from edgekd.errors import DataError


def _picture(path: Path, width: int = 100, height: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def names_of(splits) -> dict[str, list[str]]:
    return {split: [picture.path.name for picture in labels.pictures] for split, labels in splits.items()}


@pytest.fixture
def coco_file(tmp_path) -> Path:
    """Five pictures of 100 x 50; the first has three boxes, of which one leaves it and one is a crowd."""
    images = []
    for index in range(5):
        _picture(tmp_path / "images" / f"{index}.png")
        images.append({"id": 10 + index, "file_name": f"{index}.png", "width": 100, "height": 50})
    boxes = [(10, [10, 5, 20, 10], 7, 0), (10, [90, 40, 20, 20], 3, 0), (10, [0, 0, 50, 50], 3, 1)]
    boxes += [(10 + index, [1, 1, 8, 8], 3, 0) for index in range(1, 5)]
    annotations = [
        {"id": number, "image_id": image, "bbox": box, "category_id": category, "iscrowd": crowd}
        for number, (image, box, category, crowd) in enumerate(boxes)
    ]
    categories = [{"id": 7, "name": "ship"}, {"id": 3, "name": "plane"}]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def test_coco_boxes_by_hand(coco_file, tmp_path):
    labels = read_coco(coco_file)
    report = write_dataset(split_pictures(labels, 0.4, 0), tmp_path / "out")
    assert labels.class_names == ("plane", "ship")
    assert (report.n_cut, report.n_dropped, report.n_crowds) == (1, 0, 1)
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content["names"] == {0: "plane", 1: "ship"}
    (label,) = (tmp_path / "out" / "labels").rglob("0.txt")
    assert np.array_equal(read_label_lines(label, 2), [[1, 0.2, 0.2, 0.2, 0.2], [0, 0.95, 0.9, 0.1, 0.2]])
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    assert [(s.name, s.n_pictures) for s in report.splits] == [("train", 3), ("val", 2)]
    assert (tmp_path / "out" / "samples.jpg").stat().st_size > 1000
    assert json.loads((tmp_path / "out" / "report.json").read_text())["n_cut"] == 1


def test_split_is_by_picture_and_by_seed(coco_file):
    labels = read_coco(coco_file)
    turned = replace(labels, pictures=labels.pictures[::-1])
    one, two = names_of(split_pictures(labels, 0.4, 0)), names_of(split_pictures(turned, 0.4, 0))
    assert one == two
    assert not set(one["train"]) & set(one["val"])
    assert any(names_of(split_pictures(labels, 0.4, seed)) != one for seed in range(1, 5))


def test_missing_pictures_and_full_folders(coco_file, tmp_path):
    labels = read_coco(coco_file)
    splits = split_pictures(labels, 0.4, 0)
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3.png does not exist"):
        write_dataset(splits, tmp_path / "out")
    with pytest.raises(DataError, match="is not an empty folder"):
        write_dataset(splits, tmp_path / "images")
    with pytest.raises(DataError, match="split val would be empty"):
        write_dataset({"train": labels.first(2), "val": labels.first(0)}, tmp_path / "third")


def test_a_truncated_picture_does_not_enter_a_data_set(coco_file, tmp_path):
    path = tmp_path / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"3\.png"):
        write_dataset(split_pictures(read_coco(coco_file), 0.4, 0), tmp_path / "out")


def test_two_pictures_with_one_label_file_are_refused(coco_file, tmp_path):
    content = json.loads(coco_file.read_text())
    _picture(tmp_path / "images" / "0.jpg")
    content["images"].append({"id": 99, "file_name": "0.jpg", "width": 100, "height": 50})
    coco_file.write_text(json.dumps(content))
    labels = read_coco(coco_file)
    with pytest.raises(DataError, match="two pictures of the split train are named 0"):
        write_dataset({"train": labels, "val": labels.first(1)}, tmp_path / "out")


def test_dior_as_published(tmp_path):
    for folder, name in (("trainval", "00001"), ("test", "11726")):
        _picture(tmp_path / f"JPEGImages-{folder}" / f"{name}.jpg", 80, 80)
        path = tmp_path / "Annotations" / "Horizontal Bounding Boxes" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "<annotation><size><width>80</width><height>80</height></size><object><name>ship</name><bndbox>"
            "<xmin>8</xmin><ymin>16</ymin><xmax>24</xmax><ymax>32</ymax></bndbox></object></annotation>"
        )
    write_dataset(read_dior(tmp_path), tmp_path / "out")
    (label,) = (tmp_path / "out" / "labels" / "train").iterdir()
    assert np.array_equal(read_label_lines(label, 20), [[DIOR_CLASSES.index("ship"), 0.2, 0.3, 0.2, 0.2]])
    path.write_text(path.read_text().replace("ship", "boat"))
    with pytest.raises(DataError, match=r"11726.xml names the class 'boat'"):
        read_dior(tmp_path)
    path.write_text("<annotation>")
    with pytest.raises(DataError, match=r"11726.xml is not an annotation of Pascal VOC"):
        read_dior(tmp_path)
    with pytest.raises(DataError, match="give the folder of DIOR"):
        read_dior(tmp_path / "absent")


@pytest.mark.filterwarnings("ignore")
def test_dota_is_tiled_with_overlap(tmp_path):
    pytest.importorskip("shapely")
    for split in ("train", "val"):
        _picture(tmp_path / "dota" / split / "images" / "P0001.png", 1848, 1024)
        labels = tmp_path / "dota" / split / "labelTxt"
        labels.mkdir()
        (labels / "P0001.txt").write_text(
            "imagesource:GoogleEarth\ngsd:0.5\n"
            "900 100 950 100 950 150 900 150 plane 0\n100 300 140 340 120 360 80 320 ship 0\n"
        )
    report = convert_dota(tmp_path / "dota", tmp_path / "out", limit=None)
    assert [split.n_pictures for split in report.splits] == [2, 2]  # 1848 = 1024 + 1024 - 200
    assert report.splits[0].n_objects == {"plane": 2, "ship": 1}  # the plane lies in the overlap
    (labels / "P0001.txt").write_text("1 2 3 4 5 6 7 8 submarine 0\n")
    with pytest.raises(DataError, match=r"P0001.txt, line 1: .*submarine"):
        convert_dota(tmp_path / "dota", tmp_path / "other", limit=None)
    assert not list(tmp_path.glob("other/images/*/*"))
    with pytest.raises(DataError, match="needs images/ and labelTxt/"):
        convert_dota(tmp_path, tmp_path / "third", limit=None)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("2 .5 .5 .1 .1", r"line 1: class 2, expected 0 to 1"),
        ("-1 .5 .5 .1 .1", "class -1"),
        ("0.5 .5 .5 .1 .1", "class 0.5"),
        ("0 .5 .5 1.2 .1", "leaves the picture"),
        ("0 .5 .5 nan .1", "leaves the picture"),
        ("0 .9 .9 1.4 .9 1.4 1.4 .9 1.4", "leaves the picture"),
        ("0 .5 .5 .6 .5 1.1 .6", "leaves the picture"),
        ("0 .5 .5 .5 .5 .5 .5 .5 nan", "leaves the picture"),
        ("0 .5 .5 .1", "4 numbers"),
        ("red .5 .5 .1 .1", "is not a label"),
        ("0 .5 .5 -.1 .1", "leaves the picture"),
        ("0 .5 .5 inf .1", "leaves the picture"),
        ("nan .5 .5 .1 .1", "class nan"),
    ],
)
def test_labels_out_of_range(tmp_path, row, sentence):
    path = write_tiny_dataset(tmp_path / "d")
    (tmp_path / "d" / "labels" / "train" / "0.txt").write_text(row)
    with pytest.raises(DataError, match=sentence):
        check_dataset(path)


def test_broken_descriptions_and_empty_splits(tmp_path):
    path = write_tiny_dataset(tmp_path / "d")
    text = path.read_text()
    for changed, sentence in (
        (text.replace("val:", "test:"), "has no val"),
        (text.replace("images/val", "images/nothing"), "images/nothing does not exist"),
        ("[1, 2", "not a YAML"),
        ("7", "holds a int"),
        ("{}", "has no train, val, names"),
    ):
        path.write_text(changed)
        with pytest.raises(DataError, match=sentence):
            check_dataset(path)
    path.write_text(text)
    for label in (tmp_path / "d" / "labels" / "val").iterdir():
        label.unlink()
    with pytest.raises(DataError, match="split val .* holds no object"):
        check_dataset(path)
    with pytest.raises(DataError, match="does not exist"):
        check_dataset(tmp_path / "absent.yaml")


def test_report_counts(tmp_path):
    path = write_tiny_dataset(tmp_path / "d")
    label_of(tmp_path / "d" / "images" / "train" / "0.png").unlink()
    train, _ = check_dataset(path)
    assert (train.n_pictures, train.n_background, train.n_objects) == (6, 1, {"red": 5, "blue": 5})


@pytest.mark.assets
def test_nwpu_with_the_recorded_split(tmp_path):
    import os

    assets = os.environ.get("EDGEKD_ASSETS")
    if assets is None:
        pytest.skip("EDGEKD_ASSETS is not set")
    splits = read_nwpu(Path(assets) / "data" / "nwpu_vhr10")
    report = write_dataset({split: labels.first(30) for split, labels in splits.items()}, tmp_path / "out")
    assert (len(splits["train"]), len(splits["val"]), len(splits["val"].class_names)) == (416, 104, 10)
    assert report.n_dropped == 0
