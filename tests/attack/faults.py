"""Faults in the middle of a command: killed, stopped, no room for a file, few open files; then the same command again.

    python tests/attack/faults.py --faults 300 [--seed 0] [--verb run] [--fault SIGKILL] [--json FILE]

After each fault the output folder must hold the old result or the new one or nothing, a file of the user beside it must
be untouched, and the same command must then end with 0 and leave no temporary file. Exit 1 when one of that fails.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from report import write_report
from verbs import Verb, lay_inputs, verbs

FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "no room", "few files")
# A command that was stopped, or found no room, ends with one of these; a traceback ends with 1 and is looked for.
LAST_WORDS_BYTES = 4_000


def run_with_fault(words: list[str], work: Path, fault: str, after_s: float) -> tuple[int, str]:
    """Run the command and let the fault happen; return the exit code and its last words."""
    command = [sys.executable, "-m", "edgekd.cli.main", *words]

    def limit() -> None:
        if fault == "no room":
            # A file may not grow beyond this: the write fails as on a full disk, without a full disk.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(after_s * 100_000) + 1, resource.RLIM_INFINITY))
        elif fault == "few files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (8 + int(after_s * 10), 4096))

    errors = work / "stderr.txt"
    with errors.open("wb") as sink:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sink, preexec_fn=limit)
        if fault.startswith("SIG"):
            time.sleep(after_s)
            process.send_signal(getattr(signal, fault))
        code = process.wait()
    text = errors.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace")
    errors.unlink()
    return code, text


def try_fault(verb: Verb, inputs: Path, work: Path, fault: str, after_s: float) -> str:
    """Return what went wrong, or an empty string."""
    out, diary = work / "out", work / "diary.txt"
    diary.write_text("the user's own")
    (work / "in").symlink_to(inputs)
    before = tree_of(inputs)
    code, text = run_with_fault(verb.words(work), work, fault, after_s)
    if "Traceback" in text and fault not in ("SIGINT", "few files"):
        return f"traceback: {text.strip().splitlines()[-1]}"
    if code == 0 and not verb.whole(out):
        return "ended with 0 and a result that is not whole"
    if diary.read_text() != "the user's own" or tree_of(inputs) != before:
        return "changed a file of the user"
    if code == 0 and verb.keeps_old:
        return ""
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", *verb.again(work)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return f"the next call ended with {done.returncode}: {done.stderr.strip()[-200:]}"
    if not verb.whole(out):
        return "the next call left a result that is not whole"
    left = sorted(path.name for path in work.iterdir() if path.name not in ("in", "out", "diary.txt"))
    return f"left behind: {left}" if left else ""


def undisturbed_s(verb: Verb, inputs: Path, room: Path) -> float:
    """How long a verb takes; a fault comes within this time."""
    with tempfile.TemporaryDirectory(dir=room) as name:
        work = Path(name)
        (work / "in").symlink_to(inputs)
        start = time.perf_counter()
        command = [sys.executable, "-m", "edgekd.cli.main", *verb.words(work)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not verb.whole(work / "out"):
            raise SystemExit(f"{verb.name} fails without a fault: {done.stderr[-300:]}")
        return time.perf_counter() - start


def tree_of(folder: Path) -> dict[str, int]:
    """Relative path -> size of everything below a folder."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    """Try faults, print what goes wrong, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb")
    parser.add_argument("--fault", choices=FAULTS, help="this one alone; SIGKILL is `make kills`")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "inputs"
        lay_inputs(inputs)
        sys.exit(bool(_try_all(options, inputs, Path(name))))


def _try_all(options: argparse.Namespace, inputs: Path, room: Path) -> list[str]:
    """Try the faults one after the other; the report is whole after each of them. Returns the findings."""
    random, counts, findings = Random(options.seed), Counter[str](), list[str]()
    start = time.perf_counter()
    chosen = [verb for verb in verbs() if options.verb in (None, verb.name)]
    lasts_s: dict[str, float] = {}
    for number in range(options.faults):
        verb = chosen[number % len(chosen)]
        fault = options.fault or FAULTS[number // len(chosen) % len(FAULTS)]
        if verb.name not in lasts_s:
            lasts_s[verb.name] = undisturbed_s(verb, inputs, room)
        after_s = random.uniform(0.0, lasts_s[verb.name])
        with tempfile.TemporaryDirectory(dir=room) as work:
            wrong = try_fault(verb, inputs, Path(work), fault, after_s)
        counts[f"{verb.name}, {fault}: {'wrong' if wrong else 'right'}"] += 1
        if wrong:
            findings.append(f"fault {number}, {verb.name}, {fault} after {after_s:.2f} s: {wrong}")
            print(findings[-1], flush=True)
        if options.json:
            settings = {"faults": number + 1, "fault": options.fault, "seed": options.seed, "lasts_s": lasts_s}
            write_report(options.json, settings, dict(counts), findings, time.perf_counter() - start)
    for line, count in sorted(counts.items()):
        print(f"{line}: {count}")
    return findings


if __name__ == "__main__":
    main()
