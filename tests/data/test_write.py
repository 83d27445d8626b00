"""Data sets: what goes in comes out where it was, and what is wrong is named with file and line."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from tiny_data import write_tiny_dataset

from edgekd.data.check import check_dataset, label_of, read_labels
from edgekd.data.published import DIOR_CLASSES, read_coco, read_dior, read_nwpu
from edgekd.data.write import split_pictures, write_dataset
from edgekd.errors import DataError


def _picture(path: Path, width: int = 100, height: int = 50) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


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
    pictures, names = read_coco(coco_file)
    report = write_dataset(split_pictures(pictures, 0.4, 0), names, tmp_path / "out")
    assert names == ["plane", "ship"] and report.n_cut == 1 and report.n_dropped == 0
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content["names"] == {0: "plane", 1: "ship"}
    (label,) = (tmp_path / "out" / "labels").rglob("0.txt")
    assert read_labels(label, 2) == [(1, [0.2, 0.2, 0.2, 0.2]), (0, [0.95, 0.9, 0.1, 0.2])]
    assert [(s.name, s.n_pictures) for s in report.splits] == [("train", 3), ("val", 2)]
    assert (tmp_path / "out" / "samples.jpg").stat().st_size > 1000
    assert json.loads((tmp_path / "out" / "report.json").read_text())["n_cut"] == 1


def test_split_is_by_picture_and_by_seed(coco_file):
    pictures, _ = read_coco(coco_file)
    one, two = split_pictures(pictures, 0.4, 0), split_pictures(list(reversed(pictures)), 0.4, 0)
    assert one == two
    assert not {p.file for p in one["train"]} & {p.file for p in one["val"]}
    assert any(split_pictures(pictures, 0.4, seed) != one for seed in range(1, 5))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("annotations"), "KeyError 'annotations'"),
        (lambda c: c["annotations"][0].update(category_id=99), "KeyError 99"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "not enough values"),
        (lambda c: c["images"][0].update(width="wide"), "invalid literal"),
    ],
)
def test_damaged_coco_files(coco_file, change, sentence):
    content = json.loads(coco_file.read_text())
    change(content)
    coco_file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=sentence):
        read_coco(coco_file)


def test_files_that_are_no_coco(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "absent.json")
    for text, sentence in (("{", "no JSON"), ("[]", "holds a list")):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(DataError, match=sentence):
            read_coco(tmp_path / "a.json")


def test_missing_pictures_and_full_folders(coco_file, tmp_path):
    pictures, names = read_coco(coco_file)
    (tmp_path / "images" / "3.png").unlink()
    with pytest.raises(DataError, match=r"3.png is named by the labels and does not exist"):
        write_dataset(split_pictures(pictures, 0.4, 0), names, tmp_path / "out")
    with pytest.raises(DataError, match="is not empty"):
        write_dataset(split_pictures(pictures, 0.4, 0), names, tmp_path / "images")
    with pytest.raises(DataError, match="split val would be empty"):
        write_dataset({"train": pictures[:2], "val": []}, names, tmp_path / "third")


def test_dior_as_published(tmp_path):
    for folder, name in (("trainval", "00001"), ("test", "11726")):
        _picture(tmp_path / f"JPEGImages-{folder}" / f"{name}.jpg", 80, 80)
        path = tmp_path / "Annotations" / "Horizontal Bounding Boxes" / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "<annotation><size><width>80</width><height>80</height></size><object><name>ship</name><bndbox>"
            "<xmin>8</xmin><ymin>16</ymin><xmax>24</xmax><ymax>32</ymax></bndbox></object></annotation>"
        )
    splits, names = read_dior(tmp_path)
    write_dataset(splits, names, tmp_path / "out")
    (label,) = (tmp_path / "out" / "labels" / "train").iterdir()
    assert read_labels(label, 20) == [(DIOR_CLASSES.index("ship"), [0.2, 0.3, 0.2, 0.2])]
    path.write_text(path.read_text().replace("ship", "boat"))
    with pytest.raises(DataError, match=r"11726.xml is no annotation of DIOR"):
        read_dior(tmp_path)
    path.write_text("<annotation>")
    with pytest.raises(DataError, match=r"11726.xml is no annotation of DIOR"):
        read_dior(tmp_path)
    with pytest.raises(DataError, match="give the folder of DIOR"):
        read_dior(tmp_path / "absent")


@pytest.mark.filterwarnings("ignore")
def test_dota_is_tiled_with_overlap(tmp_path):
    pytest.importorskip("shapely")
    from edgekd.data.dota import convert_dota

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
        ("0 .5 .5 .1", "4 numbers"),
        ("red .5 .5 .1 .1", "is no label"),
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
        (text.replace("images/val", "images/nothing"), "split val .* holds no picture"),
        ("[1, 2", "no YAML"),
        ("7", "has no train, val, names"),
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
    splits, names = read_nwpu(Path(assets) / "data" / "nwpu_vhr10")
    report = write_dataset({key: pictures[:30] for key, pictures in splits.items()}, names, tmp_path / "out")
    assert (len(splits["train"]), len(splits["val"]), len(names)) == (416, 104, 10)
    assert report.n_dropped == 0
