"""What is attacked: for each reader of the package a good file, where it lies, and the call that reads it."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mutate import mutate_bytes, mutate_json


@dataclass(frozen=True)
class Target:
    """One reader: `lay` writes a good input into a folder and names the file to attack, `read` reads the folder."""

    name: str
    lay: Callable[[Path], Path]
    read: Callable[[Path], Any]
    is_json: bool = False

    def mutate(self, data: bytes, random: Any) -> bytes:
        """A hostile form of the file."""
        return mutate_json(data, random) if self.is_json and random.random() < 0.7 else mutate_bytes(data, random)


def picture_bytes(suffix: str = ".png", side_px: int = 24, sixteen: bool = False) -> bytes:
    """A small encoded picture."""
    import cv2

    values = np.random.default_rng(0).integers(0, 65_535 if sixteen else 255, (side_px, side_px, 3))
    done, data = cv2.imencode(suffix, values.astype(np.uint16 if sixteen else np.uint8))
    assert done
    return data.tobytes()


def _coco(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images/a.png").write_bytes(picture_bytes())
    polygon = [[2.0, 2.0, 20.0, 2.0, 20.0, 20.0, 2.0, 20.0]]
    labels = {
        "images": [{"id": 1, "file_name": "a.png", "width": 24, "height": 24}],
        "categories": [{"id": 3, "name": "ship"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 3,
                "bbox": [2, 2, 18, 18],
                "area": 324,
                "iscrowd": 0,
                "segmentation": polygon,
            }
        ],
    }
    path = folder / "annotations.json"
    path.write_text(json.dumps(labels))
    return path


def _yolo(folder: Path) -> Path:
    for split in ("train", "val"):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        (folder / "images" / split / "a.png").write_bytes(picture_bytes())
        (folder / "labels" / split / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (folder / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames:\n  0: ship\n")
    return folder / "data.yaml"


def _yolo_labels(folder: Path) -> Path:
    _yolo(folder)
    return folder / "labels/val/a.txt"


def _manifest(folder: Path) -> Path:
    from edgekd.package_files import default_models

    source = json.loads((default_models() / "models.json").read_text())
    name, digest = "detector.onnx", "0" * 64
    stages = {
        stage: {
            "files": [{"name": f"{stage}.onnx", "sha256": digest, "n_bytes": 1}],
            "precision": "fp32",
            "inputs": values["inputs"],
            "outputs": values["outputs"],
            "onnx_sha256": digest,
            "source": values["source"],
        }
        for stage, values in source["stages"].items()
    }
    manifest = {
        "format_version": 1, "edgekd_version": "0.1.0", "created": "2026-11-01T00:00:00+00:00",
        "backend": "onnxruntime", "backend_version": "1", "target": {"os": "linux", "machine": "x86_64"},
        "pipeline": source["pipeline"], "max_boxes": 300, "stages": stages,
    }  # fmt: skip
    (folder / name).write_bytes(b"x")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder / "manifest.json"


def _model_set(folder: Path) -> Path:
    from edgekd.package_files import default_models

    content = json.loads((default_models() / "models.json").read_text())
    for stage in content["stages"].values():
        (folder / stage["file"]).write_bytes(b"graph")
        stage["sha256"] = hashlib.sha256(b"graph").hexdigest()
    (folder / "models.json").write_text(json.dumps(content))
    return folder / "models.json"


def _picture(suffix: str, sixteen: bool = False) -> Callable[[Path], Path]:
    def lay(folder: Path) -> Path:
        path = folder / f"a{suffix}"
        path.write_bytes(picture_bytes(suffix, sixteen=sixteen))
        return path

    return lay


def _read_picture(folder: Path) -> Any:
    from edgekd import read_picture

    return read_picture(next(folder.glob("a.*")))


def _recipe(folder: Path) -> Path:
    from edgekd.deploy.calibration_recipes import calibration_folder

    shutil.copy(calibration_folder() / "recipes/detector-cpu.json", folder / "recipe.json")
    return folder / "recipe.json"


def _distillation_recipe(folder: Path) -> Path:
    from edgekd.train.distill.recipes import Recipe

    (folder / "recipe.json").write_text(Recipe().model_dump_json())
    return folder / "recipe.json"


def _checkpoint(folder: Path) -> Path:
    import torch

    buffer = io.BytesIO()
    torch.save({"model": {"weight": torch.zeros(4, 4)}, "epoch": 1}, buffer)
    (folder / "weights.pth").write_bytes(buffer.getvalue())
    return folder / "weights.pth"


def _detector(folder: Path) -> Path:
    return _checkpoint(folder).rename(folder / "weights.pt")


def _voc(folder: Path) -> Path:
    (folder / "a.png").write_bytes(picture_bytes())
    box = "<bndbox><xmin>3</xmin><ymin>3</ymin><xmax>20</xmax><ymax>20</ymax></bndbox>"
    size = "<size><width>24</width><height>24</height><depth>3</depth></size>"
    text = f"<annotation><filename>a.png</filename>{size}<object><name>ship</name>{box}</object></annotation>"
    (folder / "a.xml").write_text(text)
    return folder / "a.xml"


def _dota(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "labelTxt").mkdir()
    (folder / "images/a.png").write_bytes(picture_bytes())
    (folder / "labelTxt/a.txt").write_text("imagesource:x\ngsd:1\n2 2 20 2 20 20 2 20 ship 0\n")
    return folder / "labelTxt/a.txt"


def _architecture(folder: Path) -> Path:
    from edgekd.models.architecture import read_architecture

    (folder / "a.yaml").write_text(json.dumps(read_architecture("yolo11n.yaml")))
    return folder / "a.yaml"


def _onnx(folder: Path) -> Path:
    import onnx
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in "xy"]
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0, 2.0, 3.0, 4.0])
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "a.onnx")
    return folder / "a.onnx"


def _read_onnx(folder: Path) -> Any:
    from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine

    return OnnxRuntimeEngine.open(folder / "a.onnx", 1, [(folder / "a.onnx").read_bytes()])


def _journal(folder: Path) -> Path:
    from edgekd.runtime.journal import Journal
    from edgekd.types import Detections

    found = Detections(np.ones((2, 4), np.float32), np.ones(2, np.float32), np.zeros(2, np.int32))
    with Journal(folder / "a.jsonl", "key") as journal:
        for tile in range(3):
            journal.add(tile, found, None)
    return folder / "a.jsonl"


def _read_journal(folder: Path) -> Any:
    from edgekd.runtime.journal import Journal

    with Journal(folder / "a.jsonl", "key") as journal:
        return [journal.get(tile) for tile in range(3) if tile in journal]


def _signature(folder: Path) -> Path:
    from edgekd.signature import new_key, sign

    (folder / "manifest.json").write_text("{}")
    key = new_key(folder / "key", None)
    return sign(folder / "manifest.json", folder / "key", lambda: "") if key else key


def _read_signature(folder: Path) -> Any:
    from edgekd.signature import verify

    return verify(folder / "manifest.json", b"{}", folder / "key.pub")


def targets() -> list[Target]:
    """Every reader of a file that strangers may have written."""
    from edgekd.bundle import read_manifest
    from edgekd.data.check import check_dataset
    from edgekd.data.read import read_labels
    from edgekd.deploy.calibration_recipes import read_recipe
    from edgekd.model_set import read_model_set
    from edgekd.models.architecture import read_architecture
    from edgekd.models.crop_segmenter import load_crop_segmenter
    from edgekd.models.tinysam import load_tinysam
    from edgekd.models.yolo11n import load_detector
    from edgekd.runtime.results.tables import read_coco_ids
    from edgekd.train.checkpoint import read_state
    from edgekd.train.distill.recipes import load_recipe

    return [
        Target("manifest", _manifest, read_manifest, is_json=True),
        Target("model set", _model_set, read_model_set, is_json=True),
        Target("COCO labels", _coco, lambda folder: read_labels(folder / "annotations.json"), is_json=True),
        Target("data.yaml", _yolo, lambda folder: read_labels(folder / "data.yaml")),
        Target("data.yaml, checked", _yolo, lambda folder: check_dataset(folder / "data.yaml")),
        Target("YOLO labels", _yolo_labels, lambda folder: read_labels(folder / "data.yaml")),
        Target("VOC labels", _voc, read_labels),
        Target("DOTA labels", _dota, read_labels),
        Target("calibration recipe", _recipe, lambda folder: read_recipe(folder / "recipe.json"), is_json=True),
        Target(
            "distillation recipe",
            _distillation_recipe,
            lambda folder: load_recipe(str(folder / "recipe.json")),
            is_json=True,
        ),
        Target("PNG", _picture(".png"), _read_picture),
        Target("16-bit PNG", _picture(".png", sixteen=True), _read_picture),
        Target("JPEG", _picture(".jpg"), _read_picture),
        Target("TIFF", _picture(".tif"), _read_picture),
        Target("BMP", _picture(".bmp"), _read_picture),
        Target("resume file", _checkpoint, lambda folder: read_state(folder / "weights.pth")),
        Target("TinySAM checkpoint", _checkpoint, lambda folder: load_tinysam(folder / "weights.pth")),
        Target("crop checkpoint", _checkpoint, lambda folder: load_crop_segmenter(folder / "weights.pth")),
        Target("architecture", _architecture, lambda folder: read_architecture(str(folder / "a.yaml"))),
        Target("ONNX graph", _onnx, _read_onnx),
        Target("journal of tiles", _journal, _read_journal, is_json=False),
        Target("signature", _signature, _read_signature),
        Target("COCO numbers", _coco, lambda folder: read_coco_ids(folder / "annotations.json"), is_json=True),
        Target("detector checkpoint", _detector, lambda folder: load_detector(folder / "weights.pt")),
    ]
