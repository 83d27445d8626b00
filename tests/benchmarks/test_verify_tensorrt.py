"""The check for a device, driven on the stand-in: every step runs, is written at once, and is not done twice."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import fake_builder
import host_cuda
import pytest
from small_models import write_small_models

from edgekd.errors import BackendUnavailable
from edgekd.model_set import CropInput
from edgekd.runtime import cuda
from edgekd.runtime.tensorrt_library import tensorrt_library

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verify_tensorrt.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("verify_tensorrt", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "verify_tensorrt", module)
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec.loader.exec_module(module)
    kernels = module.verify_kernels
    monkeypatch.setattr(kernels, "CASES", ((90, 61, 64), (40, 40, 32)))
    monkeypatch.setattr(kernels, "N_WINDOWS", 2)
    monkeypatch.setattr(kernels, "CROP", CropInput(side_px=16, window_factor=1, pad=(9, 9, 9)))
    monkeypatch.setattr(module, "N_ROUNDS", 1)
    monkeypatch.setattr(module, "N_BOXES", (1, 2))

    def no_compiler(folder):
        raise BackendUnavailable("cmake is not on this machine")

    monkeypatch.setattr(module, "build_library", no_compiler)
    fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch))
    host_cuda.use_host_driver(monkeypatch)
    yield module
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()


def test_it_runs_and_goes_on_where_it_was_stopped(script, monkeypatch, tmp_path, capsys):
    models, out = write_small_models(tmp_path / "models"), tmp_path / "result.json"
    words = ["--models", str(models), "--precisions", "fp32", "--runs", "1", "--out", str(out)]
    monkeypatch.setattr(
        script, "verify_chain", lambda folder, n_runs: {"passed": False, "agreement": {"mask_iou": 0.1}}
    )
    assert script.main(words) == 1
    steps = json.loads(out.read_text())["steps"]
    assert list(steps) == [
        "picture kernels", "Haar kernels", "kernels under memcheck", "kernels under racecheck",
        "fp32 bundle",
        *(f"fp32 {n}" for n in ("detector", "encoder", "decoder", "chain", "C library")),
    ]  # fmt: skip
    cases = steps["picture kernels"]["cases"]
    assert list(cases) == ["letterbox 90x61 to 64", "crops 90x61", "letterbox 40x40 to 32"]
    assert all(row["levels"] <= 1 and row["share_of_copy"] > 0 for row in cases.values())
    assert steps["Haar kernels"]["left_out"] == "torch sees no GPU"
    assert [name for name, row in steps.items() if not row["passed"]] == ["fp32 chain"]
    assert set(steps["fp32 decoder"]["times_ms"]["graph"]) == {"boxes=1", "boxes=2"}
    monkeypatch.setattr(script, "verify_chain", lambda folder, n_runs: {"passed": n_runs == 1})
    monkeypatch.setattr(script, "build", lambda *arguments: pytest.fail("the bundle was built twice"))
    assert script.main(words) == 0
    again = json.loads(out.read_text())["steps"]
    assert again["fp32 encoder"] == steps["fp32 encoder"]
    assert again["fp32 chain"]["passed"]


def test_a_kernel_that_computes_wrong_numbers_fails(script, monkeypatch):
    """One grey level of a mean of 255 is forgiven, two are not."""
    launch = script.verify_kernels.letterbox_launch

    def brighter(placement, spec):
        found = launch(placement, spec)
        found.job.shift[0] += 2 / 255
        return found

    monkeypatch.setattr(script.verify_kernels, "letterbox_launch", brighter)
    assert not script.verify_kernels.verify_pictures(1)["passed"]


def test_the_sanitizer_s_verdict_counts(script, monkeypatch, tmp_path):
    program = tmp_path / "compute-sanitizer"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert script.verify_kernels.verify_with_sanitizer("memcheck") == {"passed": False, "exit_codes": {"pictures": 9}}
