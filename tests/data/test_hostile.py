"""Labels from anywhere: broken ones are named with file and entry, hostile ones open nothing.

What is here was a traceback, a silent wrong number or an open door before (attack 10, 16, 17 and the low ones).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from label_files import COCO, write_coco, write_picture, write_yolo

from edgekd.data.inside import checked_names, printable
from edgekd.data.published import read_dior, read_nwpu
from edgekd.data.read import read_labels
from edgekd.errors import DataError

ANNOTATION, IMAGE = COCO["annotations"][0], COCO["images"][0]


def refused(read: Callable[[], object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read()
    text = str(caught.value)
    assert "\n" not in text and printable(text) == text and len(text) < 700


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"annotations": None}, "unusable list 'annotations'"),
        ({"annotations": [3]}, "unusable list 'annotations'"),
        ({"annotations": [ANNOTATION | {"area": [1.0, 2.0]}]}, "expected one number"),
        ({"annotations": [ANNOTATION | {"image_id": "a\x00b"}]}, "names picture"),
        ({"images": 3}, "unusable list 'images'"),
        ({"categories": {}}, "unusable list 'categories'"),
        ({"categories": []}, "names no class"),
        ({"categories": [{"id": 4, "name": "ship"}]}, "annotation 1 uses category 9"),
        ({"categories": [{"id": 4}]}, "category 4 .* has nothing as 'name'"),
        ({"categories": [{"id": "4", "name": "ship"}]}, "a category of .* has 4 as 'id'"),
        ({"categories": [{"id": 4, "name": "ship"}, {"id": 4, "name": "tank"}]}, "two categories with the id 4"),
        ({"categories": [{"id": 4, "name": "ship"}, {"id": 9, "name": "ship"}]}, "the class 'ship' twice"),
        ({"categories": [{"id": 9, "name": "\ud800"}]}, "characters that can be shown"),
        ({"categories": [{"id": 9, "name": "a\u001b[2J"}]}, "characters that can be shown"),
        ({"images": [IMAGE, IMAGE]}, "two pictures with the id 7"),
        ({"images": [{**IMAGE, "id": [1]}]}, "has \\[1\\] as 'id'"),
        ({"images": [{**IMAGE, "width": "wide"}]}, "picture 7 .* has wide as 'width'"),
        ({"images": [{**IMAGE, "width": 0}]}, "has 0 px as 'width'"),
        ({"images": [{**IMAGE, "height": float("nan")}]}, "has nan as 'height'"),
        ({"images": [{**IMAGE, "width": 10**18}]}, "px as 'width'"),
        ({"images": [{**IMAGE, "file_name": None}]}, "has nothing as 'file_name'"),
        ({"images": [{**IMAGE, "file_name": "b.jpg"}]}, "b.jpg, which does not exist"),
        ({"images": [{**IMAGE, "file_name": "../../a.jpg"}]}, "leads out of"),
        ({"images": [{**IMAGE, "file_name": "/etc/passwd"}]}, "leads out of"),
        ({"images": [{**IMAGE, "file_name": "a" * 300}]}, "not a path"),
        ({"images": [{**IMAGE, "file_name": "a\u0000.jpg"}]}, "not a path"),
        ({"images": [{**IMAGE, "file_name": "\ud800.jpg"}]}, "not a path|does not exist"),
        ({"images": [{**IMAGE, "file_name": "."}]}, "not a plain file"),
        ({"annotations": [{**ANNOTATION, "image_id": 8}]}, "annotation 1 names picture 8"),
        ({"annotations": [{**ANNOTATION, "image_id": {}}]}, "annotation 1 has {} as 'image_id'"),
        ({"annotations": [{**ANNOTATION, "category_id": None}]}, "has nothing as 'category_id'"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, -3, 4]}]}, "no negative side"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, 3]}]}, "annotation 1 has the box"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, float("nan"), 4]}]}, "expected finite numbers"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, float("inf"), 4]}]}, "expected finite numbers"),
        ({"annotations": [{**ANNOTATION, "bbox": [1, 2, "x", 4]}]}, "expected finite numbers"),
        ({"annotations": [{**ANNOTATION, "bbox": None, "segmentation": None}]}, "as 'bbox'"),
        ({"annotations": [{**ANNOTATION, "area": float("nan")}]}, "as 'area'"),
        ({"annotations": [{**ANNOTATION, "segmentation": [[1, 1, 2]]}]}, "annotation 1 has a polygon of 1 points"),
        ({"annotations": [{**ANNOTATION, "segmentation": [[1, 1, 2, 2]]}]}, "polygon of 2 points"),
        ({"annotations": [{**ANNOTATION, "segmentation": [[1, 1, 2, 2, 500, 3]]}]}, "reaching outside its 64x48"),
        ({"annotations": [{**ANNOTATION, "segmentation": [[1, 1, 2, 2, float("nan"), 3]]}]}, "finite numbers"),
        ({"annotations": [{**ANNOTATION, "segmentation": "polygon"}]}, "neither polygons nor run lengths"),
        ({"annotations": [{**ANNOTATION, "segmentation": {"counts": "x", "size": [1, 1]}}]}, "annotation 1: run"),
        ({"annotations": [{**ANNOTATION, "segmentation": [3]}]}, "polygon of 0 points"),
    ],
)
def test_coco(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = write_coco(tmp_path, change)
    refused(lambda: read_labels(path), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "not a JSON"), ("{", "not a JSON"), ("[1, 2]", "holds a JSON list"), ("[" * 100_000, "not a JSON"),
     ('{"images": ' + "9" * 5000 + "}", "not a JSON|unusable"), ("\udcff", "cannot be read")],
)  # fmt: skip
def test_what_is_not_a_coco_file(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(lambda: read_labels(tmp_path / "a.json"), words)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.5 0.5 0.1 0.1", "line 1: class 2"), ("0 0.5 0.5 0.1", "line 1: 4 numbers"),
        ("0 0.5 nan 0.1 0.1", "leaves"), ("0 inf 0.5 0.1 0.1", "leaves"), ("0 5 5 1 1", "leaves"),
        ("-1 .5 .5 .1 .1", "class -1"), ("nan .5 .5 .1 .1", "class nan"), ("1e400 .5 .5 .1 .1", "class inf"),
        ("0 .1 .1 .2 .2 .3", "6 numbers"), ("0 a b c d", "not a label"), ("0 .1 .1 .2 .2 .3 .3 .4", "8 numbers"),
        ("\x1b[31m 0 0 0 0", "not a label"), ("0 .5 .5 -0.005 .1", "negative"), ("\n\n0 1 2", "line 3: 3 numbers"),
    ],
)  # fmt: skip
def test_yolo_lines(tmp_path: Path, line: str, words: str) -> None:
    path = write_yolo(tmp_path, line)
    refused(lambda: read_labels(path), words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("val: images/val", "has no names"), ("names: [a, b]", "no part 'val'"), ("3", "holds a int"),
        ("names: {0: a, 2: b}\nval: images/val", "from 0"), ("names: [a, a]\nval: images/val", "'a' twice"),
        ("names: [a]\nval: 7", "no part"), ("names: [a]\nval: []", "no part"), ("names: [a]\nval: [3]", "no part"),
        ("names: [a]\nval: images/none", "does not exist"), ("names: [a]\npath: 3\nval: images/val", "as `path`"),
        ("names: [a]\nval: ../../../etc", "leads out|does not exist"), ("names: 3\nval: images/val", "the names 3"),
        ('names: ["a\\e[2J"]\nval: images/val', "can be shown"), ("a: &a [*a, *a]\nb: [1", "not a YAML"),
        ("names: [a]\nval: " + "a" * 300, "not a path"), ("\t", "not a YAML"), ("- 1", "holds a list"),
    ],
)  # fmt: skip
def test_data_yaml(tmp_path: Path, text: str, words: str) -> None:
    path = write_yolo(tmp_path, "0 .5 .5 .1 .1")
    path.write_text(text)
    refused(lambda: read_labels(path), words)


def test_download_in_a_data_yaml_is_never_looked_at(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, "0 .5 .5 .1 .1")
    path.write_text(path.read_text() + f"download: |\n  open({str(tmp_path / 'run')!r}, 'w')\n")
    assert read_labels(path).n_objects == 1
    assert not (tmp_path / "run").exists()


def test_links_out_of_the_data_folder_are_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "private" / "secret.jpg")
    (tmp_path / "private" / "secret.txt").write_text("root:x:0:0")
    coco = write_coco(tmp_path / "coco")
    (tmp_path / "coco" / "images" / "a.jpg").unlink()
    os.symlink(tmp_path / "private" / "secret.jpg", tmp_path / "coco" / "images" / "a.jpg")
    refused(lambda: read_labels(coco), "leads out of")
    yolo = write_yolo(tmp_path / "yolo", "0 .5 .5 .1 .1")
    label = tmp_path / "yolo" / "labels" / "val" / "a.txt"
    label.unlink()
    os.symlink(tmp_path / "private" / "secret.txt", label)
    refused(lambda: read_labels(yolo), "leads out of")
    label.unlink()
    os.symlink(tmp_path / "private", tmp_path / "yolo" / "images" / "more")
    yolo.write_text("val: images/more\nnames: [a]")
    refused(lambda: read_labels(yolo), "leads out of")
    (tmp_path / "yolo" / "list.txt").write_text("../private/secret.jpg\n")
    yolo.write_text("val: list.txt\nnames: [a]")
    refused(lambda: read_labels(yolo), "leads out of")


def test_a_whole_folder_behind_a_link_is_fine(tmp_path: Path) -> None:
    coco = write_coco(tmp_path / "real")
    os.symlink(tmp_path / "real", tmp_path / "link")
    assert read_labels(tmp_path / "link" / coco.name).n_objects == 1
    assert read_labels(coco, tmp_path / "link" / "images").n_objects == 1


def test_exports_that_climb_one_folder_too_many_are_understood(tmp_path: Path) -> None:
    path = write_yolo(tmp_path, "0 .5 .5 .1 .1")
    path.write_text("val: ../images/val\nnames: [a]")
    assert read_labels(path).n_objects == 1
    path.write_text(f"val: {tmp_path / 'images' / 'val'}\nnames: [a]")
    assert read_labels(path).n_objects == 1


def test_pipes_do_not_hang(tmp_path: Path) -> None:
    yolo = write_yolo(tmp_path / "yolo", "0 .5 .5 .1 .1")
    label = tmp_path / "yolo" / "labels" / "val" / "a.txt"
    label.unlink()
    os.mkfifo(label)
    refused(lambda: read_labels(yolo), "not a plain file")
    label.unlink()
    picture = tmp_path / "yolo" / "images" / "val" / "a.jpg"
    picture.unlink()
    os.mkfifo(picture)
    refused(lambda: read_labels(yolo), "not a plain file")
    os.mkfifo(tmp_path / "a.json")
    refused(lambda: read_labels(tmp_path / "a.json"), "not a plain file")


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\x89PNG cut", b"text"])
def test_damaged_pictures_of_yolo(tmp_path: Path, content: bytes) -> None:
    path = write_yolo(tmp_path, "0 .5 .5 .1 .1")
    (tmp_path / "images" / "val" / "a.jpg").write_bytes(content)
    refused(lambda: read_labels(path), r"a\.jpg")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<annotation>", "a.xml is not an annotation"), ("", "is not an annotation"),
        ("<a><object><name>s</name></object></a>", "<xmin> is missing"),
        ("<a><object><bndbox/></object></a>", "<name> is missing"),
        ("<a><object><name>s</name><bndbox><xmin>nan</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
         "</object></a>", "no finite sides"),
        ("<a><object><name>s</name><bndbox><xmin>9</xmin><ymin>1</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
         "</object></a>", "no finite sides"),
        ('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', "document type or entities"),
        ('<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]><a>&y;</a>', "document type or entities"),
    ],
)  # fmt: skip
def test_voc(tmp_path: Path, content: str, words: str) -> None:
    write_picture(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(content)
    refused(lambda: read_labels(tmp_path), words)


def test_voc_without_its_picture(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<a/>")
    refused(lambda: read_labels(tmp_path), "has no picture a")


@pytest.mark.parametrize(
    ("line", "words"),
    [("1 2 3 4 5 6 7 ship 0", "line 1"), ("1 2 3 4 5 6 7 nan ship 0", "not finite"), ("1 2", "line 1"),
     ("1 2 3 4 5 6 7 8", "line 1"), ("1 2 3 4 5 6 7 8 boat 0", "line 1"), ("a:b 2 3 4 5 6 7 8 ship", "line 1")],
)  # fmt: skip
def test_dota(tmp_path: Path, line: str, words: str) -> None:
    write_picture(tmp_path / "images" / "a.png")
    (tmp_path / "labelTxt").mkdir()
    (tmp_path / "labelTxt" / "a.txt").write_text(line)
    refused(lambda: read_labels(tmp_path), words)
    (tmp_path / "labelTxt" / "a.txt").unlink()
    refused(lambda: read_labels(tmp_path), "does not exist")


def test_published_sets_that_are_not_there(tmp_path: Path) -> None:
    refused(lambda: read_nwpu(tmp_path), "does not exist")
    (tmp_path / "annotations.json").write_text(json.dumps({**COCO, "images": [], "annotations": []}))
    refused(lambda: read_nwpu(tmp_path), "lacks 520 pictures")
    refused(lambda: read_dior(tmp_path), "does not exist")


def test_names_of_classes() -> None:
    assert checked_names(["a", 3], Path("x")) == ("a", "3")
    for names in ([], [""], ["a", "a"], ["a\n"], ["a" * 201]):
        with pytest.raises(DataError):
            checked_names(names, Path("x"))
