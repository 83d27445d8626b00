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

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]")
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


def texts_of(path: Path) -> Iterator[tuple[int, str]]:
    """Every string as a whole: the pieces of an f-string with `{}` for values, docstrings left out."""
    tree = ast.parse(path.read_text())
    inner = {id(piece) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for piece in ast.walk(node)}
    inner |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


def named_in(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for flag in FLAG.findall(node.value):
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


def test_the_library_names_arguments_and_the_command_line_flags() -> None:
    """Only a whole command, such as `edgekd calibrate MODELS --images DIR`, holds flags outside `cli/`."""
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        for line, text in texts_of(path):
            first = next((found for found in FLAG.finditer(text) if found[0] not in FOREIGN), None)
            if first is not None and not re.search(r"edgekd [a-z]+", text[: first.start()]):
                wrong.append(f"{path.relative_to(PACKAGE)}:{line} {text}")
    assert not wrong, wrong


def test_foreign_flags_are_still_used() -> None:
    used = {flag for path in PACKAGE.rglob("*.py") for _, flag in named_in(path)}
    assert used >= FOREIGN - {"--extra-index-url", "--no-deps", "--prefix", "--format"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("confidence is 2, expected less", "confidence is 2, expected less (the option is --confidence)"),
        ("x.jpg does not exist", "x.jpg does not exist"),
        ("r holds a run; give another `output`", "r holds a run; give another --output"),
        ("r holds a run; give another `folder`", "r holds a run; give another folder"),
    ],
)
def test_an_error_about_an_argument_gets_its_flag(sentence: str, expected: str) -> None:
    assert with_flag(sentence, {"confidence": "--confidence", "output": "--output"}) == expected


def test_where_results_go_is_called_output_everywhere() -> None:
    def commands(command: Any) -> Iterator[Any]:
        yield command
        for child in getattr(command, "commands", {}).values():
            yield from commands(child)

    n_found = 0
    for command in commands(typer.main.get_command(app)):
        for parameter in command.params:
            if {"-o", "--output", "--out"} & set(parameter.opts):
                n_found += 1
                assert {"-o", "--output"} <= set(parameter.opts), (command.name, parameter.opts)
    assert n_found >= 15
    scripts = [*(PACKAGE.parent / "benchmarks").glob("*.py"), *(PACKAGE.parent / "examples").glob("*.py")]
    for path in scripts:
        for line in path.read_text().splitlines():
            assert '("--output"' not in line and '("--out"' not in line, f"{path.name}: {line.strip()}"
