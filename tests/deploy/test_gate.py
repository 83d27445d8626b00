"""The gate lets good INT8 pass, refuses bad INT8, and recovers it by returning blocks to float."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_models import write_pictures, write_small_models

from edgekd.bundle import read_manifest
from edgekd.deploy import auto_precision, openvino_build
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.build_options import Choice
from edgekd.deploy.calibrate import CalibrateOptions, calibrate_models
from edgekd.deploy.calibration_recipes import calibration_folder
from edgekd.deploy.gate import Block, affordable_blocks, apply_gate, blocks_of, first_passing
from edgekd.deploy.gate_limits import GateOptions, parse_gate
from edgekd.errors import BuildError, GateFailed, InputError
from edgekd.measure.quality import Sample
from edgekd.models.crop_set import copy_shipped_crop
from edgekd.package_files import default_models

INT8 = BuildOptions(backend="openvino", precision="int8")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped crop chain: the gate asks no kind, and each of its trials compiles every network anew."""
    folder = tmp_path_factory.mktemp("gate") / "models"
    copy_shipped_crop(folder, default_models(), (320, 320))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "pictures", scene, n=3)


@pytest.fixture(scope="module")
def good(models: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good") / "models"
    calibrate_models(models, pictures, folder, CalibrateOptions("cpu", "minmax", ("detector", "segmenter")))
    return folder


@pytest.fixture(scope="module")
def half(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain of three networks, of which the detector is quantized."""
    folder = tmp_path_factory.mktemp("half")
    write_small_models(folder / "models")
    options = CalibrateOptions("cpu", "minmax", ("detector",))
    calibrate_models(folder / "models", pictures, folder / "calibrated", options)
    return folder / "calibrated"


@pytest.fixture(scope="module")
def bad(models: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Head quantized, concatenations untied, and ranges that cut off one value in ten."""
    folder = tmp_path_factory.mktemp("bad")
    recipe = json.loads((calibration_folder() / "recipes" / "detector-cpu.json").read_text())
    recipe.update(name="bad", float_layers=[], tied_ops=[], percentile=90.0)
    (folder / "bad.json").write_text(json.dumps(recipe))
    options = CalibrateOptions("cpu", "percentile", ("detector",), recipes=(folder / "bad.json",))
    calibrate_models(models, pictures, folder / "models", options)
    return folder / "models"


def sample_of(folder: Path) -> Sample:
    return Sample(tuple(sorted(folder.iterdir())))


def test_good_int8_passes_and_the_manifest_says_so(good: Path, pictures: Path, tmp_path: Path) -> None:
    wanted = GateOptions(parse_gate("box_match=0.8,mask_iou=0.8"), sample_of(pictures))
    apply_gate(good, tmp_path / "b", INT8, wanted)
    manifest = read_manifest(tmp_path / "b")
    assert manifest.gate is not None and manifest.gate.passed
    assert manifest.gate.limits == {"box_match": 0.8, "mask_iou": 0.8}
    assert manifest.gate.measured["box_match"] >= 0.8
    assert 0.8 <= manifest.gate.measured["mask_iou"] < 1
    assert manifest.gate.float_layers == ()
    assert manifest.stages["detector"].precision == manifest.stages["segmenter"].precision == "int8"
    assert manifest.stages["detector"].calibration is not None


def test_bad_int8_fails_with_exit_3_and_leaves_nothing(bad: Path, pictures: Path, tmp_path: Path) -> None:
    wanted = GateOptions(parse_gate("box_match=0.8"), sample_of(pictures), fallback=False)
    with pytest.raises(GateFailed, match="box_match is 0.* at least 0.8 asked for") as caught:
        apply_gate(bad, tmp_path / "b", INT8, wanted)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "b").exists()


def test_bad_int8_is_recovered_by_blocks_in_float(bad: Path, pictures: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    wanted = GateOptions(parse_gate("box_match=0.8"), sample_of(pictures))
    apply_gate(bad, tmp_path / "b", INT8, wanted, lines.append)
    gate = read_manifest(tmp_path / "b").gate
    assert gate is not None and gate.measured["box_match"] >= 0.8
    assert 0 < len(gate.float_layers) < 50
    assert any("INT8 layers in float" in line for line in lines)
    assert read_manifest(tmp_path / "b").stages["detector"].precision == "int8"


def test_a_calibrated_set_still_holds_its_float_graph(good: Path, tmp_path: Path) -> None:
    manifest = build_bundle(good, tmp_path / "b", BuildOptions(backend="openvino", precision="fp32"), lambda line: None)
    assert {stage.precision for stage in manifest.stages.values()} == {"fp32"}
    assert manifest.stages["detector"].calibration is None


def test_what_was_calibrated_for_one_target_or_size_is_refused_for_another(good: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="calibrated for cpu"):
        build_bundle(good, tmp_path / "b", BuildOptions("tensorrt-rtx", "int8", "8.9"), lambda line: None)
    with pytest.raises(BuildError, match="calibrated at 320x320"):
        options = BuildOptions("openvino", "int8", detector_px=(640, 640))
        build_bundle(good, tmp_path / "b", options, lambda line: None)


def test_gates_that_cannot_be_read() -> None:
    assert parse_gate("box_ap=0.5, mask_iou=0.98").limits == {"box_ap": 0.5, "mask_iou": 0.98}
    for text in ("", "box_ap", "map=0.5", "mask_iou=98", "box_ap=-1", "box_ap=nan", "box_ap=a"):
        with pytest.raises(InputError, match="expected metric=limit"):
            parse_gate(text)


def test_metrics_that_need_labels_say_so(good: Path, pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs labels"):
        apply_gate(good, tmp_path / "b", INT8, GateOptions(parse_gate("box_ap=0.5"), sample_of(pictures)))


@pytest.mark.parametrize("threshold", [1, 2, 3, 7, 12])
def test_the_search_finds_the_smallest_number_that_passes(threshold: int) -> None:
    assert first_passing(12, lambda n: n >= threshold) == threshold
    assert first_passing(1, lambda n: n >= threshold) == (1 if threshold == 1 else None)
    assert first_passing(12, lambda n: False) is None


def test_blocks_and_what_may_be_returned() -> None:
    names = [
        "backbone.stages_1.blocks.0.attn.qkv",
        "backbone.stages_1.blocks.0.mlp.fc1",
        "backbone.stages_1.blocks.1.x",
    ]
    assert blocks_of(names) == {"backbone.stages_1.blocks.0": names[:2], "backbone.stages_1.blocks.1": names[2:]}
    blocks = [Block(str(index), ("a", "b"), 1.0) for index in range(5)]
    assert len(affordable_blocks(blocks, 10)) == 2
    assert len(affordable_blocks(blocks, 1)) == 1


def test_the_bundle_has_the_arithmetic_that_the_gate_measured(
    good: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second measurement would find INT8 slow: the bundle must not become one that nobody measured."""
    times = iter([1.0, 1.0])  # the first build of two stages finds INT8 fast

    def choose_once(name: str, int8: Path, plain: Path, inputs: object) -> Choice:
        return Choice("int8", "fast") if next(times, 0.0) else Choice("fp32", "int8 is not faster")

    monkeypatch.setattr(auto_precision, "choose_with_int8", choose_once)
    wanted = GateOptions(parse_gate("mask_iou=0.5"), sample_of(pictures))
    apply_gate(good, tmp_path / "b", replace(INT8, precision="auto"), wanted)
    manifest = read_manifest(tmp_path / "b")
    assert manifest.gate is not None
    assert manifest.stages["detector"].precision == manifest.stages["segmenter"].precision == "int8"


def test_int8_leaves_float_stages_in_what_is_fastest_and_says_so(
    half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    def measured(core: object, model: object, precision: str, feeds: object) -> tuple[dict[str, np.ndarray], float]:
        ran.append(precision)
        return {"low_res_masks": np.ones((1, 2, 2), np.float32)}, 1.0 if precision == "bf16" else 2.0

    monkeypatch.setattr(auto_precision, "_measure", measured)
    monkeypatch.setattr(auto_precision, "_has_bf16", lambda core: True)
    monkeypatch.setattr(openvino_build, "check_precision", lambda core, precision: None)
    stages = build_bundle(half, tmp_path / "b", INT8, lambda line: None).stages
    assert {name: (stage.precision, stage.float_precision, stage.arithmetic) for name, stage in stages.items()} == {
        "detector": ("int8", "bf16", "bf16"),
        "encoder": ("bf16", None, "bf16"),
        "decoder": ("bf16", None, "bf16"),
    }
    assert {"fp32", "bf16"} == set(ran)


def test_without_bf16_nothing_is_measured(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auto_precision, "_has_bf16", lambda core: False)
    monkeypatch.setattr(auto_precision, "_measure", lambda *words: pytest.fail("there is nothing to choose from"))
    choice = auto_precision.choose_precision("encoder", half / "encoder.onnx", {})
    assert (choice.precision, choice.reason) == ("fp32", "this CPU has no bf16 arithmetic")
