"""Do the tests notice a wrong line? Every mutant of `mutants.json` is put into a copy of the package and tested.

    python tests/mutants/run.py                   # all of them
    python tests/mutants/run.py no-lock class-width --json mutants.json

A mutant is killed when the tests it names fail, and survives when they pass; the same tests pass on the package as it
is, or the mutant says nothing. The first nineteen of the list once survived an audit. Not a part of the suite: it takes
a quarter of a minute per mutant. Exit status 1 when one survives or no longer fits its line.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900


class Mutant(NamedTuple):
    """One wrong line: its file below edgekd/, the text that is replaced, and the tests that must notice."""

    name: str
    file: str
    line: str
    wrong: str
    tests: list[str]


MUTANTS = [Mutant(**row) for row in json.loads((Path(__file__).parent / "mutants.json").read_text())]


def main() -> int:
    """Run the mutants that were asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of mutants; by default all")
    parser.add_argument("--json", type=Path, help="write name and outcome of each here as well")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant is named {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        copy = copy_project(Path(name))
        healthy = {tests: passes(copy, tests) for tests in dict.fromkeys(tuple(mutant.tests) for mutant in chosen)}
        for mutant in chosen:
            outcomes[mutant.name] = outcome_of(mutant, copy, healthy[tuple(mutant.tests)])
            print(f"{outcomes[mutant.name]:<9} {mutant.name:<22} {mutant.file}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(outcomes, indent=1) + "\n")
    n_killed = sum(outcome == "killed" for outcome in outcomes.values())
    print(f"{n_killed} of {len(outcomes)} killed")
    return 0 if n_killed == len(outcomes) else 1


def copy_project(folder: Path) -> Path:
    """The package to be changed, and links to everything that tests read beside it."""
    shutil.copytree(ROOT / "edgekd", folder / "edgekd", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name not in ("edgekd", ".git") and not path.name.endswith("cache"):
            (folder / path.name).symlink_to(path)
    return folder


def outcome_of(mutant: Mutant, folder: Path, is_healthy: bool) -> str:
    """`killed`, `survived`, `stale` (its line is gone) or `sick` (its tests fail without it)."""
    path = folder / "edgekd" / mutant.file
    text = path.read_text()
    if text.count(mutant.line) != 1:
        return "stale"
    if not is_healthy:
        return "sick"
    path.write_text(text.replace(mutant.line, mutant.wrong))
    try:
        return "survived" if passes(folder, tuple(mutant.tests)) else "killed"
    finally:
        path.write_text(text)


def passes(folder: Path, tests: tuple[str, ...]) -> bool:
    """Whether tests pass on the package in a folder; one that never ends has noticed something."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
