"""Labels are read as they are written, and refused in one sentence when they cannot be used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from label_files import COCO, write_coco, write_picture, write_yolo

from edgekd.data.read import read_labels
from edgekd.errors import DataError


def test_coco_boxes_become_xyxy_and_classes_become_positions(tmp_path: Path) -> None:
    labels = read_labels(write_coco(tmp_path))
    (picture,) = labels.pictures
    assert labels.class_names == ("ship", "storage_tank")
    assert labels.has_masks
    assert picture.path == tmp_path / "images" / "a.jpg"
    assert picture.size_px == (48, 64)
    np.testing.assert_array_equal(picture.xyxy, [[10, 20, 40, 30]])
    assert picture.class_id.tolist() == [1]
    assert picture.area_px.tolist() == [150.0]


def test_yolo_box_and_polygon_become_pixels(tmp_path: Path) -> None:
    box = read_labels(write_yolo(tmp_path / "box", "1 0.5 0.5 0.25 0.5\n"))
    np.testing.assert_allclose(box.pictures[0].xyxy, [[24, 12, 40, 36]])
    assert not box.has_masks
    ring = read_labels(write_yolo(tmp_path / "ring", "0 0.25 0.25 0.75 0.25 0.75 0.75\n"))
    np.testing.assert_allclose(ring.pictures[0].xyxy, [[16, 12, 48, 36]])
    assert ring.pictures[0].area_px.tolist() == [pytest.approx(32 * 24 / 2)]
    assert ring.has_masks


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_labels(tmp_path / "none.json")
    with pytest.raises(DataError, match="not a path"):
        read_labels("a" * 300 + ".json")
    (tmp_path / "labels.txt").touch()
    with pytest.raises(DataError, match="neither"):
        read_labels(tmp_path / "labels.txt")
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(DataError, match="not a JSON file"):
        read_labels(tmp_path / "cut.json")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(DataError, match="not a YAML file"):
        read_labels(tmp_path / "code.yaml")
    with pytest.raises(DataError, match="does not hold images/ and labels/"):
        read_labels(tmp_path)


def test_nothing_labelled_is_said(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, "")
    with pytest.raises(DataError, match="labels no object"):
        read_labels(path)
    assert read_labels(path, needs_objects=False).n_objects == 0


def test_masks_to_learn_from(tmp_path: Path) -> None:
    crowd = {**COCO["annotations"][0], "id": 2, "iscrowd": 1, "segmentation": {"size": [48, 64], "counts": [3072]}}
    found = read_labels(write_coco(tmp_path, {"annotations": [*COCO["annotations"], crowd]}))
    assert len(found.pictures[0]) == 2 and found.has_masks
    assert len(found.for_masks().pictures[0]) == 1
    boxes = read_labels(write_yolo(tmp_path / "box", "1 0.5 0.5 0.25 0.5\n"))
    with pytest.raises(DataError, match="object 1 of a.jpg has no polygon"):
        boxes.for_masks()
    with pytest.raises(DataError, match="no object with a polygon"):
        found.first(0).for_masks()


def test_every_format_says_the_same(tmp_path: Path) -> None:
    """One picture, one box, written by hand in all five formats."""
    expected = [[16, 12, 48, 36]]
    voc = tmp_path / "voc"
    write_picture(voc / "JPEGImages" / "a.jpg")
    (voc / "Annotations").mkdir()
    (voc / "Annotations" / "a.xml").write_text(
        "<annotation><object><name>ship</name><bndbox><xmin>16</xmin><ymin>12</ymin><xmax>48</xmax><ymax>36</ymax>"
        "</bndbox></object></annotation>"
    )
    dota = tmp_path / "dota"
    write_picture(dota / "images" / "a.png")
    (dota / "labelTxt").mkdir()
    (dota / "labelTxt" / "a.txt").write_text("gsd:0.5\n16 12 48 12 48 36 16 36 ship 0\n")
    coco = {"annotations": [{"id": 1, "image_id": 7, "category_id": 4, "bbox": [16, 12, 32, 24]}]}
    sources = [voc, dota, write_coco(tmp_path / "coco", coco), write_yolo(tmp_path / "yolo", "0 .5 .5 .5 .5")]
    for source in [*sources, (tmp_path / "yolo").parent / "plain"]:
        if source.name == "plain":
            write_picture(source / "images" / "a.jpg")
            (source / "labels").mkdir()
            (source / "labels" / "a.txt").write_text("0 .25 .25 .75 .25 .75 .75 .25 .75")
            (source / "classes.txt").write_text("ship\nstorage_tank")
        labels = read_labels(source)
        np.testing.assert_allclose(labels.pictures[0].xyxy, expected)
        assert labels.pictures[0].name_of(0) == "ship"
        assert labels.pictures[0].area_px.tolist() == [pytest.approx(32 * 24)]
        assert labels.oriented == (source == dota)
        assert int(labels.pictures[0].mask(0)[13:35, 17:47].sum()) == 22 * 30
