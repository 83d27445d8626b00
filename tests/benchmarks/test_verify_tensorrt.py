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
from edgekd.runtime import cuda
from edgekd.runtime.tensorrt_library import tensorrt_library

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "verify_tensorrt.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("verify_tensorrt", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "verify_tensorrt", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "N_ROUNDS", 1)
    monkeypatch.setattr(module, "N_BOXES", (1, 2))

    def no_compiler(folder):
        raise BackendUnavailable("cmake is not on this machine")

    monkeypatch.setattr(module, "build_library", no_compiler)
    fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch))
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
        "fp32 bundle",
        *(f"fp32 {n}" for n in ("detector", "encoder", "decoder", "chain", "C library")),
    ]
    assert [name for name, row in steps.items() if not row["passed"]] == ["fp32 chain"]
    assert set(steps["fp32 decoder"]["times_ms"]["graph"]) == {"boxes=1", "boxes=2"}
    monkeypatch.setattr(script, "verify_chain", lambda folder, n_runs: {"passed": n_runs == 1})
    monkeypatch.setattr(script, "build", lambda *arguments: pytest.fail("the bundle was built twice"))
    assert script.main(words) == 0
    again = json.loads(out.read_text())["steps"]
    assert again["fp32 encoder"] == steps["fp32 encoder"]
    assert again["fp32 chain"]["passed"]
