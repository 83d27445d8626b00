"""Do the tests notice a wrong line? Every mutant of `mutants.json` is put into a copy of the package and tested.

    python tests/mutants/run.py                                # all of them
    python tests/mutants/run.py no-lock class-width
    python tests/mutants/run.py --json benchmarks/results/mutants.json      # goes on where it stopped

A mutant is killed when the tests it names fail, and survives when they pass; the same tests pass on the package as it
is, or the mutant says nothing. The first nineteen of the list once survived an audit. Not a part of the suite: it takes
a quarter of a minute per mutant. Every run of tests is a fork of this process, in which the slow libraries are loaded
already. With `--json` each outcome is written at once, with the first test that failed, and a mutant whose outcome is
known, and whose lines and package file are the same, is not run again. Exit status 1 when one survives or no longer
fits its line.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900
PRELOADED = ("pytest", "numpy", "cv2", "torch", "torchvision", "ultralytics", "onnx", "onnxruntime")


class Mutant(NamedTuple):
    """One wrong line: its file below edgekd/, the text that is replaced, and the tests that must notice.

    Where those skip without an environment variable, `needs` names it, and the mutant is left out where it is not set.
    """

    name: str
    file: str
    line: str
    wrong: str
    tests: list[str]
    needs: str = ""


class Outcome(NamedTuple):
    """`killed`, `survived`, `stale` (its line is gone) or `sick` (its tests fail without it); the test that failed."""

    word: str
    by: str = ""


MUTANTS = [Mutant(**row) for row in json.loads((Path(__file__).parent / "mutants.json").read_text())]


def main() -> int:
    """Run the mutants that were asked for; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of mutants; by default all")
    parser.add_argument("--json", type=Path, help="write the outcome of each here as well")
    options = parser.parse_args()
    unknown = set(options.names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        parser.error(f"no mutant is named {', '.join(sorted(unknown))}")
    chosen = [mutant for mutant in MUTANTS if not options.names or mutant.name in options.names]
    for mutant in chosen:
        if mutant.needs and not os.environ.get(mutant.needs):
            print(f"left out  {mutant.name:<22} {mutant.needs} is not set")
    chosen = [mutant for mutant in chosen if not mutant.needs or os.environ.get(mutant.needs)]
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else {}
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    healthy: dict[tuple[str, ...], bool] = {}
    with tempfile.TemporaryDirectory() as name:
        copy = copy_project(Path(name))
        for mutant in chosen:
            if known.get(mutant.name, {}).get("key") != key_of(mutant):
                outcome = outcome_of(mutant, copy, healthy)
                known[mutant.name] = {**outcome._asdict(), "key": key_of(mutant)}
                if options.json:
                    options.json.write_text(json.dumps(known, indent=1) + "\n")
            shown: dict[str, Any] = known[mutant.name]
            print(f"{shown['word']:<9} {mutant.name:<22} {mutant.file:<34} {shown['by']}", flush=True)
    n_killed = sum(known[mutant.name]["word"] == "killed" for mutant in chosen)
    print(f"{n_killed} of {len(chosen)} killed")
    return 0 if n_killed == len(chosen) else 1


def key_of(mutant: Mutant) -> str:
    """A hash of the mutant and of the file that it changes."""
    path = ROOT / "edgekd" / mutant.file
    text = path.read_text() if path.exists() else ""
    return hashlib.sha256(json.dumps([*mutant[:5], text]).encode()).hexdigest()[:16]


def copy_project(folder: Path) -> Path:
    """The package to be changed, and links to everything that tests read beside it."""
    shutil.copytree(ROOT / "edgekd", folder / "edgekd", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name not in ("edgekd", ".git") and not path.name.endswith("cache"):
            (folder / path.name).symlink_to(path)
    return folder


def outcome_of(mutant: Mutant, folder: Path, healthy: dict[tuple[str, ...], bool]) -> Outcome:
    """Test a mutant; `healthy` remembers which tests pass without one."""
    path, tests = folder / "edgekd" / mutant.file, tuple(mutant.tests)
    text = path.read_text() if path.exists() else ""
    if text.count(mutant.line) != 1:
        return Outcome("stale")
    if tests not in healthy:
        healthy[tests] = first_failure(folder, tests) is None
    if not healthy[tests]:
        return Outcome("sick")
    path.write_text(text.replace(mutant.line, mutant.wrong))
    try:
        failed = first_failure(folder, tests)
    finally:
        path.write_text(text)
    return Outcome("survived") if failed is None else Outcome("killed", failed)


def first_failure(folder: Path, tests: tuple[str, ...]) -> str | None:
    """The first of the tests that fails on the package in a folder, None if all pass; one that never ends fails."""
    log = folder / "pytest.log"
    child = os.fork()
    if child == 0:
        run_tests(folder, tests, log)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "no end"
        time.sleep(0.05)
    if os.waitstatus_to_exitcode(status) == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", log.read_text(), re.MULTILINE)
    return found[1] if found else "no test could be collected"


def run_tests(folder: Path, tests: tuple[str, ...], log: Path) -> None:
    """Become pytest on the package in a folder; this process ends with its exit status."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    status = 1
    try:
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
        pytest = importlib.import_module("pytest")
        status = int(pytest.main(["-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]))
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    sys.exit(main())
