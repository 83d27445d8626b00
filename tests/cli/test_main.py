"""The command line as a user meets it: exit codes, one sentence, results on stdout, files in one piece."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from bundle_files import rewrite
from called import call_main

from edgekd.cli import main as cli
from edgekd.errors import InputError
from edgekd.runtime.sources import read_picture


def edgekd(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekd.cli.main", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['edgekd', '--help']\n"
        "from edgekd.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'cv2', 'openvino', 'onnx', 'pydantic', 'ultralytics'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "build-engine" in done.stdout


def test_bench_shows_its_options() -> None:
    for arguments in (("bench", "--help"), ("bench",)):
        assert "--min-runs" in edgekd(*arguments).stdout


def test_user_errors_are_one_sentence_and_exit_1(tmp_path: Path, shipped_bundle: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0cut")
    cases = [
        ("run", tmp_path / "nowhere", "a.jpg"),
        ("run", shipped_bundle, tmp_path / "missing.jpg"),
        ("run", shipped_bundle, tmp_path / "empty"),
        ("run", shipped_bundle, tmp_path / "cut.jpg", "-o", tmp_path / "out"),
        ("run", shipped_bundle, tmp_path / "cut.jpg", "--confidence", "2"),
        ("build-engine", tmp_path / "empty", "-o", tmp_path / "b"),
        ("bench", tmp_path / "nowhere"),
        ("bench", "compare", tmp_path / "a.json", tmp_path / "b.json"),
        ("inspect", tmp_path / "empty"),
        ("weights", "verify", "nothing"),
        ("build-engine", tmp_path / "empty", "-o", tmp_path / "b", "--segmenter-size", "big"),
        ("build-engine", tmp_path / "empty", "-o", tmp_path / "b", "--gate", "box_ap=0.5"),
        ("build-engine", tmp_path / "empty", "-o", tmp_path / "b", "--gate", "beauty=1", "--data", "labels.json"),
    ]
    for case in cases:
        done = call_main(*case)
        assert done.returncode == 1, (case, done.stdout, done.stderr)
        assert done.stderr.startswith("edgekd: ") and done.stderr.count("\n") == 1, (case, done.stderr)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("2 MiB"),
        RuntimeError("can't start new thread"),
        ValueError("std::bad_alloc"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        ImportError("libx.so: failed to map segment from shared object"),
        RuntimeError("could not create a primitive"),
        ValueError("Failed to serialize proto"),
    ],
)
def test_memory_that_runs_out_is_one_sentence(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fails)
    done = call_main("run")
    assert done.returncode == 1 and done.stderr.startswith("edgekd: memory ran out (") and done.stderr.count("\n") == 1


def test_no_memory_for_the_words_of_an_error_leaves_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*words: object) -> None:
        raise InputError("the disk is full") if not words else MemoryError

    monkeypatch.setattr(cli, "app", fails)
    monkeypatch.setattr(cli, "_options_of", fails)
    done = call_main("run")
    assert done.returncode == 1 and done.stderr == "edgekd: the disk is full\n"


def test_usage_errors_exit_2() -> None:
    assert edgekd("run").returncode == 2
    assert edgekd("build-engine", "models", "-o", "b", "--backend", "coreml").returncode == 2


def test_run_writes_everything_it_promises(tmp_path: Path, shipped_bundle: Path, scene: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene)
    done = edgekd("run", shipped_bundle, tmp_path / "a.png", "-o", tmp_path / "out", "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stderr
    assert "a: " in done.stdout and "storage_tank" in done.stdout
    assert read_picture(tmp_path / "out" / "a_overlay.jpg").shape == scene.shape
    labels = cv2.imread(str(tmp_path / "out" / "a_masks.png"), cv2.IMREAD_UNCHANGED)
    picture = json.loads((tmp_path / "r.json").read_text())["pictures"][0]
    assert labels.dtype == np.uint16 and labels.max() <= len(picture["objects"])
    assert set(picture["objects"][0]) == {
        "class_name",
        "class_id",
        "confidence",
        "xyxy",
        "area_px",
        "predicted_iou",
        "mask",
    }


def test_one_broken_picture_does_not_cost_the_others(tmp_path: Path, shipped_bundle: Path, scene: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), scene)
    (tmp_path / "b.png").write_bytes(b"broken")
    cv2.imwrite(str(tmp_path / "c.png"), scene[:320])
    done = edgekd("run", shipped_bundle, tmp_path, "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "1 of the sources" in done.stderr
    names = [picture["name"] for picture in json.loads((tmp_path / "out" / "results.json").read_text())["pictures"]]
    assert names == ["a", "c"]


def test_a_terminated_run_keeps_its_results(tmp_path: Path, shipped_bundle: Path, scene: np.ndarray) -> None:
    (tmp_path / "in").mkdir()
    for index in range(40):
        cv2.imwrite(str(tmp_path / "in" / f"{index:02}.png"), scene[:320, :480])
    command = [sys.executable, "-m", "edgekd.cli.main", "run", str(shipped_bundle), str(tmp_path / "in")]
    running = subprocess.Popen(
        [*command, "-o", str(tmp_path / "out"), "--no-overlays"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    running.stdout.readline()
    running.terminate()
    _, said = running.communicate()
    assert running.returncode == 143 and "terminated" in said and "Traceback" not in said
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert 1 <= len(content["pictures"]) < 40 and content["complete"] is False


@pytest.mark.parametrize(("end", "code"), [(SystemExit(143), 143), (KeyboardInterrupt(), 130)])
def test_a_signal_that_came_inside_a_library_ends_the_run(
    monkeypatch: pytest.MonkeyPatch, end: BaseException, code: int
) -> None:
    """NumPy turns the exception of a signal that came in one of its calls into its own; it was a traceback."""

    def app() -> None:
        raise SystemError("__str__ returned a result with an exception set") from end

    monkeypatch.setattr(cli, "app", app)
    assert call_main("run").returncode == code


def test_too_many_open_files_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def app() -> None:
        raise OSError(errno.EMFILE, "Too many open files", "/dev/null")

    monkeypatch.setattr(cli, "app", app)
    done = call_main("run")
    assert done.returncode == 1 and "ulimit -n" in done.stderr and done.stderr.count("\n") == 1


def test_bench_reports_and_compares(tmp_path: Path, shipped_bundle: Path) -> None:
    report = tmp_path / "a.json"
    done = edgekd("bench", shipped_bundle, "--json", report, "--min-runs", 2, "--min-seconds", 0, "--warm-up", 1)
    assert done.returncode == 0, done.stderr
    content = json.loads(report.read_text())
    assert content["machine"]["n_cores"] >= 1 and content["stages"]["total"]["n"] == 2
    assert "p99 rests on 2 runs" in done.stderr
    compared = edgekd("bench", "compare", report, report)
    assert compared.returncode == 0 and "1.00x" in compared.stdout
    content["settings"]["n_boxes"] = [77]
    (tmp_path / "b.json").write_text(json.dumps(content))
    refused = edgekd("bench", "compare", report, tmp_path / "b.json")
    assert refused.returncode == 1 and "number of boxes" in refused.stderr


def test_inspect_and_doctor(shipped_bundle: Path, tmp_path: Path) -> None:
    done = edgekd("inspect", shipped_bundle, "--json", tmp_path / "m.json")
    assert done.returncode == 0 and "airplane" in done.stdout
    assert json.loads((tmp_path / "m.json").read_text())["backend"] == "openvino"
    healthy = edgekd("doctor", shipped_bundle)
    assert healthy.returncode == 0 and "fits this machine" in healthy.stdout
    assert "pictures: prepared on the host, because the engines are there" in " ".join(healthy.stdout.split())


def test_inspect_shows_a_gate_without_a_limit(shipped_bundle: Path, tmp_path: Path) -> None:
    gate = {"passed": True, "measured": {"box_ap": 0.1, "miou": 0.2}, "limits": {"miou": 1}, "n_images": 3}
    shutil.copy(shipped_bundle / "manifest.json", tmp_path)
    rewrite(tmp_path, lambda manifest: manifest.update(gate=gate))
    done = edgekd("inspect", tmp_path)
    assert done.returncode == 0 and "box_ap 0.1000, miou 0.2000 (limit 1)" in done.stdout, done.stderr


@pytest.mark.parametrize("name", ["yolo11n-nwpu", "tinysam"])
def test_weights_are_listed(name: str) -> None:
    assert name in edgekd("weights", "list").stdout
