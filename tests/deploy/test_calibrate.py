"""`edgekd calibrate`: hashes kept and checked, the runtime's own preprocessing, a sentence for what cannot be used."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import write_pictures, write_small_models

from edgekd.deploy import calibration_set
from edgekd.deploy.calibrate import CalibrateOptions, calibrate_models
from edgekd.deploy.calibration_recipes import calibration_folder, read_recipe, recipes_for
from edgekd.deploy.calibration_set import CalibrationSet, make_set
from edgekd.deploy.qdq import calibration_facts
from edgekd.deploy.ranges import collect_histograms, ranges_by
from edgekd.deploy.stage_inputs import StageInputs
from edgekd.errors import DataError, InputError, ModelError
from edgekd.files import sha256_of
from edgekd.model_set import CALIBRATION_SET, read_model_set
from edgekd.runtime import preprocess as runtime_preprocess
from edgekd.runtime.sources import read_picture

MINMAX = CalibrateOptions("cpu", method="minmax", stages=("detector",))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_models(tmp_path_factory.mktemp("calibrate") / "models")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "pictures", scene)


@pytest.fixture(scope="module")
def calibrated(models: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrated") / "models"
    calibrate_models(models, pictures, folder, MINMAX)
    return folder


def test_hashes_are_in_the_graph_and_in_the_model_set(models: Path, calibrated: Path) -> None:
    stage = read_model_set(calibrated).stages["detector"]
    assert stage.quantized and stage.calibration is not None
    facts = calibration_facts(onnx.load(calibrated / stage.file))
    assert facts == stage.calibration
    known = CalibrationSet.model_validate_json((calibrated / CALIBRATION_SET).read_text())
    assert facts["set_sha256"] == known.sha256()
    assert facts["float_model_sha256"] == sha256_of(models / "detector.onnx")
    assert (facts["method"], facts["target"], facts["recipe"]) == ("minmax", "cpu", "detector-cpu")
    untouched = read_model_set(calibrated).stages["encoder"]
    assert untouched == read_model_set(models).stages["encoder"]


def test_pictures_go_through_the_runtimes_preprocessing(models: Path, pictures: Path) -> None:
    spec = read_model_set(models).pipeline.detector_input
    known = make_set(pictures, 2, {"detector": spec})
    chosen = [pictures / picture.id for picture in known.pictures]
    (first, _) = StageInputs(models, read_model_set(models), "detector", chosen).feeds()
    expected, _ = runtime_preprocess.preprocess(read_picture(pictures / known.pictures[0].id), spec)
    np.testing.assert_array_equal(first["images"], expected)


def test_methods_find_the_ranges_that_they_promise() -> None:
    """A ramp from 0 to 1 and one outlier at 100: min-max keeps it, the percentile does not."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 10_001])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 10_001])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    ramp = np.append(np.linspace(-1, 1, 10_000), 100).astype(np.float32)[None]
    histograms = collect_histograms(model, ["x", "y"], [{"x": ramp}])
    recipe = recipes_for("cpu")["detector"].model_copy(update={"percentile": 99.9})
    assert ranges_by(histograms, "minmax", recipe)["x"] == (-1.0, 100.0)
    assert ranges_by(histograms, "minmax", recipe)["y"] == (0.0, 100.0)
    low, high = ranges_by(histograms, "percentile", recipe)["x"]
    assert low == pytest.approx(-1, abs=0.1) and high == pytest.approx(1, abs=0.1)
    assert ranges_by(histograms, "entropy", recipe)["x"][1] < 100


def test_a_quantized_set_is_refused(calibrated: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="quantized already"):
        calibrate_models(calibrated, pictures, tmp_path / "again", MINMAX)
    assert not (tmp_path / "again").exists()


def test_pictures_that_cannot_be_used(models: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, words in ((tmp_path / "none", "not a folder"), (tmp_path / "empty", "nothing to calibrate on")):
        with pytest.raises(DataError, match=words):
            calibrate_models(models, folder, tmp_path / "out", MINMAX)
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in pictures.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "01.png").write_bytes(b"no picture")
    (broken / "02.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 4 calibration pictures"):
        calibrate_models(models, broken, tmp_path / "out", MINMAX)
    assert not (tmp_path / "out").exists()


def test_a_set_holds_its_pictures_to_their_hashes(
    models: Path, calibrated: Path, pictures: Path, tmp_path: Path
) -> None:
    options = replace(MINMAX, set_file=calibrated / CALIBRATION_SET)
    again = calibrate_models(models, pictures, tmp_path / "same", options)
    assert again.stages["detector"].sha256 == read_model_set(calibrated).stages["detector"].sha256
    other = tmp_path / "other"
    other.mkdir()
    for path in pictures.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "00.png").write_bytes((other / "01.png").read_bytes())
    with pytest.raises(DataError, match="sha256 differs"):
        calibrate_models(models, other, tmp_path / "out", options)
    (other / "00.png").unlink()
    with pytest.raises(DataError, match="lacks 00.png"):
        calibrate_models(models, other, tmp_path / "out", options)
    (tmp_path / "set.json").write_text('{"name": "x", "pictures": [{"id": "../00.png", "sha256": "1"}]}')
    with pytest.raises(DataError, match="not a calibration set"):
        calibrate_models(models, pictures, tmp_path / "out", replace(MINMAX, set_file=tmp_path / "set.json"))


def test_another_input_size_does_not_fit_the_set(models: Path, pictures: Path) -> None:
    spec = read_model_set(models).pipeline.detector_input
    known = make_set(pictures, 2, {"detector": spec})
    with pytest.raises(DataError, match="another detector input"):
        calibration_set.check_set(known, pictures, {"detector": spec.model_copy(update={"height_px": 640})})


def test_shipped_recipes_cover_every_network_and_both_targets() -> None:
    for target in ("tensorrt", "cpu"):
        assert set(recipes_for(target)) == {"detector", "encoder", "segmenter"}  # type: ignore[arg-type]
    assert not list(calibration_folder().rglob("*.py"))


def test_recipes_that_cannot_be_used(tmp_path: Path) -> None:
    shipped = calibration_folder() / "recipes" / "detector-cpu.json"
    with pytest.raises(InputError, match="does not exist"):
        read_recipe(tmp_path / "none.json")
    content = json.loads(shipped.read_text())
    content["float_layers"] = [{"pattern": "(", "why": ""}]
    (tmp_path / "bad.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="regular expression"):
        read_recipe(tmp_path / "bad.json")
    with pytest.raises(InputError, match="for cpu, not tensorrt"):
        recipes_for("tensorrt", [shipped])
    with pytest.raises(InputError, match="second recipe"):
        recipes_for("cpu", [shipped, shipped])
