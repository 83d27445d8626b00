"""An oriented bundle in INT8: calibrated, gated by the AP of its turned boxes, inspected, evaluated and benched."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import write_pictures
from typer.testing import CliRunner

onnx = pytest.importorskip("onnx")
pytest.importorskip("faster_coco_eval")

from oriented_nets import write_oriented_models  # noqa: E402

import edgekd  # noqa: E402
from edgekd.cli.main import app  # noqa: E402
from edgekd.data.read import read_labels  # noqa: E402
from edgekd.deploy.build import BuildOptions, build_bundle  # noqa: E402
from edgekd.measure.quality import QualityCheck, Sample  # noqa: E402
from edgekd.runtime.detect import DetectOptions  # noqa: E402
from edgekd.runtime.oriented import boxes_of, corners_of  # noqa: E402

SIDE_PX = 320


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_oriented_models(tmp_path_factory.mktemp("gate") / "models")
    described = json.loads((folder / "models.json").read_text())
    described["pipeline"]["detector_input"] |= {"height_px": SIDE_PX, "width_px": SIDE_PX}
    (folder / "models.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="module")
def data(models: Path, scene: np.ndarray) -> Path:
    """Pictures with the float detector's confident boxes as YOLO-obb labels: its own turned AP is high."""
    pictures, labels = write_pictures(models.parent / "images", scene, 2), models.parent / "labels"
    labels.mkdir()
    build_bundle(models, models.parent / "float", BuildOptions("onnxruntime", "fp32", square=True))
    with edgekd.load(models.parent / "float", n_threads=1) as chain:
        names = list(chain.manifest.pipeline.class_names)
        for file in sorted(pictures.iterdir()):
            picture = edgekd.read_picture(file)
            found = chain.detect(picture, DetectOptions(confidence=0.25))
            assert found.corners is not None and len(found) > 2
            inside = (found.corners.min((1, 2)) >= 0) & (found.corners.max(1) <= picture.shape[1::-1]).all(1)
            rows = zip(found.class_id[inside], found.corners[inside] / picture.shape[1::-1], strict=True)
            lines = [" ".join([str(c), *(f"{v:.6f}" for v in quad.ravel())]) for c, quad in rows]
            (labels / f"{file.stem}.txt").write_text("\n".join(lines))
    yaml = models.parent / "data.yaml"
    yaml.write_text(json.dumps({"path": str(models.parent), "train": "images", "val": "images", "names": names}))
    return yaml


def call(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.output


def test_int8_is_gated_by_turned_ap_and_shown(models: Path, data: Path, tmp_path: Path) -> None:
    images = data.parent / "images"
    call("calibrate", models, "--images", images, "--target", "cpu", "--method", "minmax", "-o", tmp_path / "int8",
         "--only", "detector")  # fmt: skip
    built = ("build-engine", tmp_path / "int8", "--backend", "onnxruntime", "--precision", "int8", "--data", data)
    call(*built, "--gate", "box_ap=30,box_match=0.5", "-o", tmp_path / "bundle")
    shown = call("inspect", tmp_path / "bundle", "--json", tmp_path / "manifest.json")
    assert "kind crop, format 3, head obb: turned boxes, angles as sigmoid; suppression: ProbIoU" in shown
    gate = json.loads((tmp_path / "manifest.json").read_text())["gate"]
    call("evaluate", tmp_path / "bundle", "--data", data, "--only", "detector", "--json", tmp_path / "ap.json")
    ap = json.loads((tmp_path / "ap.json").read_text())["box"]["ap"]
    float_ap = QualityCheck(edgekd.load(data.parent / "float"), sample_of(data), ("box_ap",)).expected["box_ap"]
    assert gate["passed"] and gate["measured"]["box_ap"] == pytest.approx(100 * (float_ap - ap), abs=0.2)
    assert float_ap > 0.9 and ap > 0.5
    call(
        "bench",
        tmp_path / "bundle",
        images,
        "--min-runs",
        "2",
        "--warm-up",
        "1",
        "--min-seconds",
        "0",
        "--json",
        tmp_path / "bench.json",
    )
    assert "detector" in json.loads((tmp_path / "bench.json").read_text())["stages"]


def sample_of(data: Path, degrees: float = 0.0) -> Sample:
    labels = read_labels(data, split="val")
    if degrees:
        turned = []
        for picture in labels.pictures:
            boxes = boxes_of(np.array([picture.turned_corners(index) for index in range(len(picture))]))
            boxes[:, 4] += np.deg2rad(degrees)
            quads = tuple([quad.ravel().tolist()] for quad in corners_of(boxes))
            turned.append(replace(picture, segmentations=quads))
        labels = replace(labels, pictures=tuple(turned))
    return Sample.of_labels(labels)


def test_the_gate_sees_angles(data: Path) -> None:
    """The same centres and sides at another angle are other boxes; a gate on upright boxes would not know."""
    with edgekd.load(data.parent / "float", n_threads=1) as chain:
        right = QualityCheck(chain, sample_of(data), ("box_ap",)).expected["box_ap"]
        wrong = QualityCheck(chain, sample_of(data, 40), ("box_ap",)).expected["box_ap"]
    assert right > 0.9 and wrong < right / 2
