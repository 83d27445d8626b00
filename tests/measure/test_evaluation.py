"""What `edgekd evaluate` measures in one call: which reports come, in which order, and what is refused before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import write_pictures

from edgekd.errors import InputError
from edgekd.measure import evaluation
from edgekd.measure.evaluation import EvaluationJob, measure_bundle, reports_text, table_of
from edgekd.measure.parity import ParityReport


def test_two_bundles_are_compared_without_labels(shipped_bundle: Path, scene, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", scene, n=1)

    (report,) = measure_bundle(EvaluationJob(bundle=shipped_bundle, against=shipped_bundle, images=pictures))

    assert isinstance(report, ParityReport) and report.n_images == 1
    assert table_of(report) and json.loads(reports_text([report]))["n_images"] == 1
    assert len(json.loads(reports_text([report, report]))) == 2


def test_what_is_asked_for_comes_in_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    for name in ("evaluate", "measure_robustness", "difference_between", "compare_with", "write_worst_cases"):
        monkeypatch.setattr(evaluation, name, lambda *_, name=name: asked.append(name) or name)
    monkeypatch.setattr(evaluation, "read_labels", lambda *_: "labels")
    files = {"data": tmp_path, "against": tmp_path, "grid": tmp_path / "worst.png"}

    found = list(measure_bundle(EvaluationJob(bundle=tmp_path, robustness=True, **files)))

    assert found == ["evaluate", "measure_robustness", "difference_between", "compare_with"]
    assert asked == [
        "evaluate", "measure_robustness", "evaluate", "difference_between", "write_worst_cases", "compare_with",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "nothing to measure on"),
        ({"against": Path("b")}, "nothing to measure on"),
        ({"against": Path("b"), "images": Path("i"), "grid": Path("g.png")}, "grid shows the worst pictures"),
        ({"against": Path("b"), "images": Path("i"), "robustness": True}, "robustness is measured on labels"),
    ],
)
def test_what_cannot_be_measured_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        EvaluationJob(bundle=Path("a"), **given)


def test_the_package_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "edgekd", "evaluate", "a"], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith("edgekd: nothing to measure on: give labels as --data")
