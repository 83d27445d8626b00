"""Every flag that a string of the package names exists; a library error gets the flag of its argument."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from edgekd.cli.main import app, with_flag

PACKAGE = Path(__file__).parent.parent.parent / "edgekd"
# Flags of other programs: cmake, nvrtc, nvidia-smi, trtexec, venv, c++.
FOREIGN = {
    "--build", "--parallel", "--install", "--prefix", "--query-gpu", "--format", "--fmad", "--std", "--load",
    "--gpu-architecture", "--system-site-packages", "--extra-index-url", "--no-deps",
}  # fmt: skip


def flags_of(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for child in getattr(command, "commands", {}).values():
        yield from flags_of(child)


def named_in(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", node.value):
                yield node.lineno, flag


def test_every_flag_that_a_string_names_exists() -> None:
    known = {"--help", *flags_of(typer.main.get_command(app)), *FOREIGN}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} {flag}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, flag in named_in(path)
        if flag not in known
    ]
    assert not wrong, wrong


def test_foreign_flags_are_still_used() -> None:
    used = {flag for path in PACKAGE.rglob("*.py") for _, flag in named_in(path)}
    assert used >= FOREIGN - {"--extra-index-url", "--no-deps", "--prefix", "--format"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("confidence is 2, expected less", "confidence is 2, expected less (the option is --confidence)"),
        ("x.jpg does not exist", "x.jpg does not exist"),
    ],
)
def test_an_error_about_an_argument_gets_its_flag(sentence: str, expected: str) -> None:
    assert with_flag(sentence, {"confidence": "--confidence"}) == expected
