"""A short attack in every run of the tests, and proof that the attack sees what it looks for."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from inputs import attack
from targets import Target, targets


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_a_hostile_file_is_read_or_refused_with_a_sentence(target: Target) -> None:
    tally = attack(target, n_inputs=40, seed=1)
    assert not tally.findings
    assert sum(tally.counts.values()) == 40


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("distillation recipe", 1433),
        ("TinySAM checkpoint", 359),
        ("ONNX graph", 202),
        ("journal of tiles", 4),
        ("journal of tiles", 7),
    ],
)
def test_what_an_attack_of_50_000_found_is_refused_with_a_sentence(name: str, number: int) -> None:
    """Control characters in a message; errors of PyTorch's reader of pickles and of a tile that lacks its boxes."""
    target = next(target for target in targets() if target.name == name)
    assert attack(target, n_inputs=1, seed=7, first=number).counts == {"refused": 1}


def _lay(folder: Path) -> Path:
    (folder / "a.txt").write_text("good")
    return folder / "a.txt"


@pytest.mark.parametrize(
    ("read", "finding"),
    [
        (lambda folder: os.system("true"), "os.system"),
        (lambda folder: folder.with_name("pwned.txt").open("a").close(), "open"),
        (lambda folder: {}["missing"], "KeyError"),
    ],
)
def test_the_attack_sees_what_it_looks_for(read, finding: str) -> None:
    tally = attack(Target("planted", _lay, read), n_inputs=1, seed=0)
    (Path(tempfile.gettempdir()) / "pwned.txt").unlink(missing_ok=True)
    assert any(finding in line for line in tally.findings)
