"""Documents tell the truth: tables are those of the result files, commands name verbs that exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_tables_are_generated_from_results() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/render_tables.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_help_of_the_tables_writes_nothing() -> None:
    command = [sys.executable, str(ROOT / "benchmarks/render_tables.py"), "--help"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("usage: ")


def test_every_verb_in_the_documents_exists() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", "--help"], capture_output=True, text=True, check=True
    ).stdout
    verbs = set(re.findall(r"^│ ([a-z-]+) ", shown, re.MULTILINE))
    for path in (ROOT / "README.md", *ROOT.glob("*/README.md")):
        for verb in re.findall(r"\bedgekd ((?!-)[a-z][a-z-]+)", " ".join(re.findall(r"`[^`]*`", path.read_text()))):
            assert verb in verbs, f"{path.name}: edgekd {verb}"


def test_result_files_name_their_machine() -> None:
    import json

    for path in (ROOT / "benchmarks/results").glob("*.json"):
        result = json.loads(path.read_text())
        assert result["machine"]["cpu"] and result["machine"]["versions"], path.name


def test_ci_runs_the_readme_command() -> None:
    readme = (ROOT / "README.md").read_text()
    block = readme.split("<!-- test command -->")[1].split("<!-- end -->")[0]
    assert ".venv/bin/pytest" in block
    assert "test command" in (ROOT / ".ci/run").read_text()
