"""What the shipped chains keep when pictures are turned, scaled, covered, blurred, noisy, compressed, or dense.

    python benchmarks/bench_robustness.py --data annotations.json --split edgekd/data/splits/nwpu_seed0.json \
        crop=CROP_BUNDLE sam=SAM_BUNDLE [--limit sam=26]

One report of `edgekd evaluate --robustness` per bundle, with its processor time and wall time, and a plot of what is
kept. A bundle that is known by its hash and its number of pictures is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from result_file import RESULTS, result_path, write_result

from edgekd.data.read import read_labels
from edgekd.files import sha256_of
from edgekd.measure.robustness import RobustnessReport, measure_robustness, plot_robustness


def main() -> None:
    arguments = parse()
    bundles = dict(text.split("=", 1) for text in arguments.bundles)
    limits = {name: int(number) for name, number in (text.split("=", 1) for text in arguments.limit)}
    labels = read_labels(arguments.data, split="train").without_crowds()
    if arguments.split:
        labels = labels.only(json.loads(arguments.split.read_text())["validation"])
    path = result_path("robustness", arguments.output)
    chains: dict[str, Any] = json.loads(path.read_text())["chains"] if path.exists() else {}
    for name, folder in bundles.items():
        shown = labels.first(limits.get(name))
        known = chains.get(name, {}).get("report", {})
        same = known.get("bundle_sha256") == sha256_of(Path(folder) / "manifest.json")
        if same and known["rows"][0]["n_images"] == len(shown.pictures):
            continue
        wall, processor = time.perf_counter(), time.process_time()
        report = measure_robustness(Path(folder), shown, n_threads=arguments.threads)
        chains[name] = {
            "wall_s": round(time.perf_counter() - wall, 1),
            "processor_s": round(time.process_time() - processor, 1),
            "report": report.model_dump(mode="json", exclude={"machine"}),
        }
        print(name, chains[name]["wall_s"], chains[name]["processor_s"], flush=True)
        write_result("robustness", {"settings": {"threads": arguments.threads}, "chains": chains}, arguments.output)
    machine = json.loads(path.read_text())["machine"]
    reports = {name: RobustnessReport(machine=machine, **entry["report"]) for name, entry in chains.items()}
    plot_robustness(reports, path.with_suffix(".png"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", metavar="NAME=BUNDLE")
    parser.add_argument("--data", type=Path, required=True, help="labels with masks")
    parser.add_argument("--split", type=Path, help="JSON with a list `validation` of file names")
    parser.add_argument("--limit", nargs="*", default=[], metavar="NAME=N", help="most pictures of a bundle")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
