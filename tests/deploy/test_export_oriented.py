"""An oriented detector from checkpoint to bundle: one more output, the head named, turned boxes, floats in INT8."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("ultralytics")

from oriented_nets import CLASSES, TINY, write_oriented_checkpoint, write_oriented_models  # noqa: E402

import edgekd  # noqa: E402
from edgekd.bundle import read_manifest  # noqa: E402
from edgekd.deploy.build import BuildOptions, build_bundle  # noqa: E402
from edgekd.deploy.calibrate import name_layers  # noqa: E402
from edgekd.deploy.calibration_recipes import recipes_for  # noqa: E402
from edgekd.deploy.export import ExportOptions, detector_graph, export_graph, pipeline_of  # noqa: E402
from edgekd.deploy.qdq import place_pairs  # noqa: E402
from edgekd.errors import BundleError, ModelError  # noqa: E402
from edgekd.graphs import ANGLE_LOGITS, BOX_LOGITS, CLASS_LOGITS  # noqa: E402
from edgekd.model_set import Source  # noqa: E402
from edgekd.models.yolo11n import load_detector  # noqa: E402
from edgekd.runtime.chain import ChainOptions  # noqa: E402
from edgekd.runtime.oriented import enclosing  # noqa: E402

SOURCE = Source(name="random", sha256="0", licence="none", trained=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_oriented_models(tmp_path_factory.mktemp("oriented") / "models")


@pytest.fixture(scope="module")
def bundle(models: Path) -> Path:
    build_bundle(models, models.parent / "bundle", BuildOptions(precision="fp32", detector_px=(320, 320), square=True))
    return models.parent / "bundle"


def test_a_checkpoint_becomes_a_graph_whose_angles_stay_float_beside_int8(tmp_path: Path) -> None:
    network = load_detector(write_oriented_checkpoint(tmp_path / "tiny-obb.pt", architecture=TINY), oriented=True)
    options = ExportOptions(detector_px=(96, 64))
    stage = export_graph(detector_graph(network, options), tmp_path / "detector.onnx", SOURCE, half=False)
    assert [spec.name for spec in stage.outputs] == [BOX_LOGITS, CLASS_LOGITS, ANGLE_LOGITS]
    pipeline = pipeline_of(network, "crop", options)
    assert (pipeline.head.name, pipeline.head.angle, pipeline.class_names) == ("obb", "sigmoid", CLASSES)
    model = onnx.load(tmp_path / "detector.onnx")
    name_layers(model, model)
    convolutions = [node.name for node in model.graph.node if node.op_type == "Conv"]
    last = [name for name in convolutions if name.endswith(".2") and ".angle." in name]
    for target in ("cpu", "tensorrt"):
        int8 = place_pairs(model, recipes_for(target)["detector"]).layers
        assert len(last) == 3 and len(int8) > 15 and not set(last) & set(int8)
        assert any(".angle." in name for name in int8)  # the branch before them is quantized like the others
    with pytest.raises(ModelError, match="OBBModel"):
        load_detector(tmp_path / "tiny-obb.pt")


def test_the_chain_gives_corners_beside_the_box_around_them(bundle: Path, scene: np.ndarray) -> None:
    with edgekd.load(bundle, n_threads=1) as chain:
        found = chain.detect(scene)
        result = chain(scene, ChainOptions(masks=False))
    assert read_manifest(bundle).format_version == 3
    assert len(found) > 5 and found.corners is not None
    limits = np.array([scene.shape[1], scene.shape[0]] * 2)
    np.testing.assert_allclose(found.xyxy, enclosing(found.corners).clip(0, limits))
    np.testing.assert_array_equal(result.detections.corners, found.corners)
    assert found[2:4].corners is not None and found[2:4].corners.shape == (2, 4, 2)
    upright = enclosing(found.corners[:, [0, 0, 2, 2]])
    assert np.abs(upright - enclosing(found.corners)).max() > 5


def test_old_bundles_have_upright_heads_and_odd_ones_are_refused(bundle: Path, tmp_path: Path) -> None:
    content = json.loads((bundle / "manifest.json").read_text())
    del content["digest"]
    head = content["pipeline"]["head"]
    del head["name"], head["angle"]
    (tmp_path / "manifest.json").write_text(json.dumps(content | {"format_version": 2}))
    assert not read_manifest(tmp_path).pipeline.head.is_oriented
    head["name"] = "pose"
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="head.name"):
        read_manifest(tmp_path)


def test_a_network_that_puts_out_nan_is_refused_in_one_sentence(
    models: Path, tmp_path: Path, scene: np.ndarray
) -> None:

    from edgekd.files import sha256_of

    shutil.copytree(models, tmp_path / "models")
    model = onnx.load(tmp_path / "models" / "detector.onnx")
    angle = next(node for node in model.graph.node if ANGLE_LOGITS in node.output)
    angle.output[0] = "before"
    # A NaN weight would be refused at the open, so it comes from arithmetic: the root of what is at most -1.
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(-1, np.float32), "minus_one"))
    model.graph.node.append(onnx.helper.make_node("Min", ["before", "minus_one"], ["negative"]))
    model.graph.node.append(onnx.helper.make_node("Sqrt", ["negative"], [ANGLE_LOGITS]))
    onnx.save(model, tmp_path / "models" / "detector.onnx")
    described = json.loads((tmp_path / "models" / "models.json").read_text())
    described["stages"]["detector"]["sha256"] = sha256_of(tmp_path / "models" / "detector.onnx")
    (tmp_path / "models" / "models.json").write_text(json.dumps(described))
    options = BuildOptions(precision="fp32", detector_px=(160, 160), square=True, known_answer=False)
    build_bundle(tmp_path / "models", tmp_path / "bundle", options)
    with edgekd.load(tmp_path / "bundle", n_threads=1) as chain, pytest.raises(BundleError, match=ANGLE_LOGITS):
        chain.detect(scene)


def test_doctor_inspect_and_bench_know_turned_boxes(bundle: Path, tmp_path: Path) -> None:
    from bundle_files import rewrite
    from typer.testing import CliRunner

    from edgekd.cli.main import app

    def call(*words: object) -> str:
        result = CliRunner().invoke(app, [*map(str, words)])
        assert result.exit_code == 0, result.output
        return " ".join(result.output.split())

    known = read_manifest(bundle).known_answer
    assert known is not None and known.found and known.given
    assert "answers as it did when it was built" in call("doctor", bundle)
    assert "turned boxes, angles as sigmoid" in call("inspect", bundle)
    times = call("bench", bundle, "--min-runs", 1, "--min-seconds", 0, "--warm-up", 0, "--threads", 1)
    assert "detector" in times and "total" in times
    turned = Path(shutil.copytree(bundle, tmp_path / "turned"))
    rewrite(turned, lambda content: content["pipeline"]["head"].update(angle="radians"))
    result = CliRunner().invoke(app, ["doctor", str(turned)])
    assert result.exit_code == 1 and isinstance(result.exception, BundleError | SystemExit)
