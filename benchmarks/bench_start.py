"""Seconds from a bundle to the first result in a fresh process, with and without OpenVINO's compiled networks kept.

    python benchmarks/bench_start.py --threads 2

Every start is a process of its own that opens the bundle and runs the demonstration picture once; what is timed ends
with that result and leaves out Python's imports. Starts without kept networks and with them take turns, and all must
find the same objects with the same numbers. The first start that keeps them has a row of its own: it writes them too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from result_file import write_result

from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.models.crop_set import copy_shipped_crop
from edgekd.models.weights import copy_shipped
from edgekd.package_files import default_models

KINDS: dict[str, Callable[[Path], object]] = {
    "crop": lambda folder: copy_shipped_crop(folder, default_models()),
    "sam": lambda folder: copy_shipped(folder, None, None),
}
START = """
import json, sys, time
import openvino
from edgekd import read_picture
from edgekd.package_files import DEMO_PICTURE
from edgekd.runtime.chain import Chain
picture = read_picture(DEMO_PICTURE)
start = time.perf_counter()
with Chain.open(sys.argv[1], int(sys.argv[2])) as chain:
    opened = time.perf_counter()
    result = chain(picture)
    ended = time.perf_counter()
found = result.detections
areas = [int(result.masks.full(index).sum()) for index in range(len(found))]
print(json.dumps({"open_s": opened - start, "first_result_s": ended - opened,
                  "found": [found.xyxy.tolist(), found.confidence.tolist(), found.class_id.tolist(), areas]}))
"""


def start(bundle: Path, threads: int, cache: Path, keeps: bool) -> dict[str, Any]:
    """Open the bundle and run one picture in a new process."""
    environment = {**os.environ, "EDGEKD_CACHE": str(cache), "EDGEKD_MODEL_CACHE": "on" if keeps else "off"}
    command = [sys.executable, "-c", START, str(bundle), str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"a start ended with {done.returncode}: {done.stderr[-2000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(bundle: Path, threads: int, rounds: int, cache: Path) -> dict[str, Any]:
    """Time the starts of one bundle; the medians count."""
    first = start(bundle, threads, cache, keeps=True)
    runs: dict[str, list[dict[str, Any]]] = {"compiled": [], "kept": []}
    for _ in range(rounds):
        for name, found in runs.items():
            found.append(start(bundle, threads, cache, keeps=name == "kept"))
    every = [first, *runs["compiled"], *runs["kept"]]
    assert all(each["found"] == first["found"] for each in every), "kept networks gave other numbers"
    kept = list((cache / "openvino").iterdir())
    return {
        "n_objects": len(first["found"][0]), "n_networks": len(kept),
        "kept_bytes": sum(path.stat().st_size for path in kept), "first": row([first]),
        **{name: row(found) for name, found in runs.items()},
    }  # fmt: skip


def row(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians of the two parts of a start and of the whole."""
    parts = {name: [each[name] for each in runs] for name in ("open_s", "first_result_s")}
    parts["whole_s"] = [each["open_s"] + each["first_result_s"] for each in runs]
    return {name: round(statistics.median(values), 3) for name, values in parts.items()}


def main() -> None:
    """Build the bundles, measure, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    results = {}
    for kind, copied in KINDS.items():
        with tempfile.TemporaryDirectory() as name:
            room = Path(name)
            copied(room / "models")
            build_bundle(room / "models", room / "bundle", BuildOptions(precision="fp32"), lambda line: None)
            results[kind] = measure(room / "bundle", options.threads, options.rounds, room / "cache")
    settings = {"threads": options.threads, "rounds": options.rounds, "precision": "fp32", "statistic": "median"}
    print(write_result("start", {"settings": settings, "kinds": results}, options.output))


if __name__ == "__main__":
    main()
