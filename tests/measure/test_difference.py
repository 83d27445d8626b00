"""Two bundles are compared picture by picture, and what is printed stands in the JSON file as well."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edgekd.measure.accuracy import PictureScore
from edgekd.measure.difference import paired_difference


def test_paired_pictures_are_drawn_together() -> None:
    def score(name: str, f1: float, miou: float | None) -> PictureScore:
        return PictureScore(name=name, n_objects=1, box_f1=f1, miou=miou)

    base = [score(str(i), 0.1 * (i % 7), None) for i in range(40)]
    better = [score(s.name, (s.box_f1 or 0) + 0.05, 0.5) for s in base]
    mean, low, high, n_pictures = paired_difference(better, base)["box_f1"]
    assert n_pictures == 40 and (mean, low, high) == pytest.approx(
        (0.05, 0.05, 0.05)
    )  # the pictures differ, the differences do not
    mixed = [score(s.name, (s.box_f1 or 0) + 0.2 * (int(s.name) % 2), None) for s in base]
    mean, low, high, _ = paired_difference(mixed, base)["box_f1"]
    assert low < mean < high and mean == pytest.approx(0.1) and "miou" not in paired_difference(mixed, base)
    assert paired_difference(better, [score("other", 1.0, None)]) == {}


def test_against_with_labels_is_printed_and_kept(tmp_path, shipped_bundle, scene) -> None:
    from edgekd.cli.main import app

    (tmp_path / "images" / "val").mkdir(parents=True)
    (tmp_path / "labels" / "val").mkdir(parents=True)
    for name, picture in (("a", scene), ("b", np.ascontiguousarray(scene[:, ::-1]))):
        cv2.imwrite(str(tmp_path / "images" / "val" / f"{name}.png"), picture)
        (tmp_path / "labels" / "val" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    from edgekd.runtime.chain import Chain

    with Chain.open(shipped_bundle) as chain:
        names = list(chain.manifest.pipeline.class_names)
    data = tmp_path / "data.yaml"
    data.write_text(f"path: {tmp_path}\ntrain: images/val\nval: images/val\nnames: {json.dumps(names)}\n")
    report, bundle = tmp_path / "report.json", str(shipped_bundle)
    words = ["evaluate", bundle, "--data", str(data), "--against", bundle, "--only", "detector", "--json", str(report)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "box_f1 per picture, points over the reference: +0.00 [+0.00, +0.00]" in result.output
    kinds = {each["kind"]: each for each in json.loads(report.read_text())}
    assert kinds["difference"]["measures"] == {"box_f1": [0.0, 0.0, 0.0, 2]}
    assert kinds["difference"]["bundle_sha256"] == kinds["difference"]["reference_sha256"]
