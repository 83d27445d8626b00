"""The plans of TensorRT-RTX: a command that goes on where it stopped, and bounds that refuse what became large."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rtx_plans.py"
RESULTS = SCRIPT.parent / "results"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    spec = importlib.util.spec_from_file_location("rtx_plans", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "library_version", lambda rtx: "1.7.1")
    return module


def test_a_finished_plan_is_not_built_again(script, monkeypatch, tmp_path):
    built, out = [], tmp_path / "result.json"

    def measured(name, models, sm, room):
        built.append((sm, name))
        if len(built) == 2:
            raise KeyboardInterrupt
        return {"plan_mb": 1.0, "activation_mb": 1.0, "cpu_seconds": 1.0}

    monkeypatch.setattr(script, "measured", measured)
    words = ["--sm", "89", "--stages", "detector,encoder", "--out", str(out)]
    with pytest.raises(KeyboardInterrupt):
        script.main(words)
    assert list(json.loads(out.read_text())["plans"]["89"]) == ["detector"]
    assert script.main(words) == 0
    assert built == [(89, "detector"), (89, "encoder"), (89, "encoder")]


def test_what_is_above_its_bound_is_a_sentence(script):
    rows = {"encoder": {"plan_mb": 478.0, "activation_mb": 319.0}}
    assert script.too_large(75, rows) == []
    assert script.too_large(89, rows) == [
        "the plan of the encoder for sm_89 has 478 MB, expected at most 60",
        "the encoder for sm_89 wants 319 MB of activations, expected at most 120",
    ]


def test_the_recorded_plans_are_whole_and_within_the_bounds(script):
    (path,) = RESULTS.glob("rtx_plans_*.json")
    plans = json.loads(path.read_text())["plans"]
    assert set(plans) == {"75", "80", "86", "89", "120"}
    for sm, rows in plans.items():
        assert set(rows) == set(script.STAGES)
        assert script.too_large(int(sm), rows) == []
