"""Hostile files against every reader: each is read, or refused with one sentence; nothing else may happen.

    python tests/attack/inputs.py --inputs 50000 [--seed 0] [--json FILE]

A number and a target name an input, so a finding can be made again: --target "COCO labels" --first 1234 --inputs 1.
Exit 1 when a reader let another exception out, started a program, connected, or wrote outside its folder; 3 when the
time was over: the same call with the same file goes on. OpenCV's libraries say on stderr what they think of a file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from guard import watched
from report import write_report
from targets import Target, targets

from edgekd.errors import EdgekdError

MAX_FINDINGS = 20


@dataclass
class Tally:
    """What became of the inputs of one target."""

    counts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def note(self, number: int, what: str, text: str) -> None:
        """Keep a finding with the number that makes it again."""
        self.counts[what] += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(f"input {number}: {text}")


def attack(target: Target, n_inputs: int, seed: int, first: int = 0) -> Tally:
    """Read `n_inputs` hostile forms of one good file."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        victim = target.lay(folder)
        good = victim.read_bytes()
        for number in range(first, first + n_inputs):
            victim.write_bytes(target.mutate(good, Random(f"{seed} {target.name} {number}")))
            _read(target, folder, number, tally)
    return tally


def _read(target: Target, folder: Path, number: int, tally: Tally) -> None:
    with watched(folder) as crimes, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(folder)
            tally.counts["read"] += 1
        except EdgekdError as error:
            message = str(error)
            if "\n" in message or "\x1b" in message or not message.isprintable():
                tally.note(number, "not one printable sentence", repr(message)[:300])
            else:
                tally.counts["refused"] += 1
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            tally.note(
                number, "another exception", f"{type(error).__name__}: {error!s:.150} ({place.filename}:{place.lineno})"
            )
        for crime in list(crimes):
            tally.note(number, "broke the rules", crime)


def main() -> None:
    """Attack, print one line per target, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=50_000, help="over all targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--target")
    parser.add_argument("--json", type=Path, help="result file; targets that are in one that is there are done")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time, at the end of a target")
    options = parser.parse_args()
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
    sys.exit(_attack_all(options, [target for target in targets() if options.target in (None, target.name)]))


def _attack_all(options: argparse.Namespace, chosen: Sequence[Target]) -> int:
    share, end = -(-options.inputs // len(chosen)), time.perf_counter() + 60.0 * options.minutes
    settings = {"inputs": share * len(chosen), "seed": options.seed, "first": options.first}
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else None
    if known and known["settings"] != settings:
        raise SystemExit(f"{options.json} is of a call with other settings: {known['settings']}")
    counts, findings, took_s = (known["counts"], known["findings"], known["took_s"]) if known else ({}, [], 0.0)
    for target in chosen:
        start = time.perf_counter()
        if target.name in counts:
            continue
        if start > end:
            print(f"{len(counts)} of {len(chosen)} targets, {len(findings)} findings; the time is over")
            return 3
        tally = attack(target, share, options.seed, options.first)
        counts[target.name] = dict(tally.counts)
        findings += [f"{target.name}, {line}" for line in tally.findings]
        took_s += time.perf_counter() - start
        print("\n    ".join([f"{target.name}: {counts[target.name]}", *tally.findings]), flush=True)
        if options.json:
            write_report(options.json, settings, counts, findings, took_s)
    return int(bool(findings))


if __name__ == "__main__":
    main()
