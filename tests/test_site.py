"""The documentation site builds without a warning, and every command and flag in a document exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from edgekd.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "calibration/*.md", "benchmarks/*.md", "edgekd/**/*.md")
    for path in ROOT.glob(pattern)
    if path.name != "commands.md"
)
# A command may stand behind an environment's path, and in an indented block.
_COMMAND = re.compile(r"^\s*(?:\.venv/bin/)?edgekd +(.*)$", re.MULTILINE)


def commands_of(page: Path) -> list[list[str]]:
    """Every command line that starts with edgekd in a fence or an indented block, without comments."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += ["\n".join(re.findall(r"^    .*$", text, re.MULTILINE))]
    lines = [line for block in blocks for line in _COMMAND.findall(block)]
    return [shlex.split(line.replace("…", "").split(") ")[0], comments=True) for line in lines]


def flags_of(words: list[str]) -> set[str]:
    """The flags of the command that `words` name; fails when there is no such command."""
    command = typer.main.get_command(app)
    known = {"--help"} | _own_flags(command)
    if words and not words[0].startswith("-"):
        assert words[0] in command.commands, f"no verb {words[0]}"
    for word in words:
        children = getattr(command, "commands", {})
        # A group may have a command of its own that takes what names no other: `edgekd bench BUNDLE`.
        command = children.get(word) or children.get("default")
        if command is None:
            break
        known |= _own_flags(command)
    return known


def _own_flags(command: Any) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_document_exists(page: Path) -> None:
    for words in commands_of(page):
        known = flags_of(words)
        for word in words:
            flag = word.split("=")[0]
            if re.match(r"--?[a-z]", flag):
                assert flag in known, f"{page.name}: edgekd {' '.join(words)}: no flag {flag}"


def test_the_check_finds_a_wrong_flag() -> None:
    assert "--gate" in flags_of(["build-engine", "models/"])
    assert "--no-such-flag" not in flags_of(["build-engine"])
    with pytest.raises(AssertionError, match="no verb"):
        flags_of(["dance"])


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the documentation extra is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(tmp_path / "site")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    assert "edgekd.load" in (tmp_path / "site/reference/python.html").read_text()
    assert "build-engine" in (tmp_path / "site/reference/commands.html").read_text()


def test_the_first_python_page_runs(shipped_bundle: Path, tmp_path: Path) -> None:
    from edgekd.package_files import DEMO_PICTURE

    page = (ROOT / "docs/start.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "demo.jpg").symlink_to(DEMO_PICTURE)
    (tmp_path / "edgekd-demo").mkdir()
    (tmp_path / "edgekd-demo/bundle").symlink_to(shipped_bundle)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    n_objects = int(done.stdout.split()[0])
    assert n_objects > 0
    assert f"({n_objects}, 4)" in done.stdout
