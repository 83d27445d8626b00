"""libedgekd against the Python chain: same bundle, same pictures, same process, turn by turn.

    python benchmarks/bench_capi.py BUNDLE PICTURE... [--library LIBEDGEKD] [--threads 2]

Boxes and masks are compared first; no time is written when they disagree. The overhead is what is left of the total
when the three networks are taken away: both sides call the same OpenVINO, so it is all that C can win.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from result_file import write_result

from edgekd.capi.build import default_prefix
from edgekd.capi.library import CChain, Library
from edgekd.files import sha256_of
from edgekd.runtime.chain import Chain
from edgekd.runtime.sources import read_picture
from edgekd.types import ChainResult, UInt8Array

NETWORKS = ("detector", "encoder", "decoder")
MAX_BOX_DIFFERENCE_PX, MIN_MASK_IOU = 0.5, 0.995


def main() -> None:
    arguments = parse()
    pictures = [read_picture(path) for path in arguments.pictures]
    library = Library(arguments.library)
    with Chain.open(arguments.bundle, arguments.threads) as python:
        c = CChain.open(library, arguments.bundle, arguments.threads)
        parity = check_parity(python, c, pictures)
        times_ms = measure({"python": python, "c": c}, pictures, arguments.runs)
        c.close()
    report = {
        "bundle_sha256": sha256_of(arguments.bundle / "manifest.json"),
        "settings": {
            "threads": arguments.threads,
            "runs": arguments.runs,
            "pictures": [path.name for path in arguments.pictures],
            "statistic": "fastest run per picture and stage, summed over the pictures",
        },
        "parity": parity,
        "results": summarise(times_ms),
    }
    print(write_result("capi", report, arguments.output))
    print(json.dumps(report["results"], indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--library", type=Path, default=default_prefix() / "lib" / "libedgekd.so")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def check_parity(python: Chain, c: CChain, pictures: list[UInt8Array]) -> dict[str, float]:
    """Compare the two sides on every picture; these runs also warm both up."""
    worst = {"box_difference_px": 0.0, "min_mask_iou": 1.0, "n_objects": 0.0}
    for picture in pictures:
        one, other = python(picture), c(picture)
        if len(one) != len(other):
            raise SystemExit(f"Python finds {len(one)} objects, C {len(other)}: no times are written")
        difference = np.abs(one.detections.xyxy - other.detections.xyxy).max(initial=0)
        worst["box_difference_px"] = max(worst["box_difference_px"], float(difference))
        worst["min_mask_iou"] = min([worst["min_mask_iou"], *(mask_iou(one, other, i) for i in range(len(one)))])
        worst["n_objects"] += len(one)
    if worst["box_difference_px"] > MAX_BOX_DIFFERENCE_PX or worst["min_mask_iou"] < MIN_MASK_IOU:
        raise SystemExit(f"the two sides disagree ({worst}): no times are written")
    return worst


def mask_iou(one: ChainResult, other: ChainResult, index: int) -> float:
    a, b = one.masks.full(index), other.masks.full(index)
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def measure(
    sides: dict[str, Chain | CChain], pictures: list[UInt8Array], runs: int
) -> dict[str, list[dict[str, float]]]:
    """Return for each side one dictionary per picture: the fastest milliseconds of every stage.

    The sides take turns on each picture and in being first, so that a slow spell of the machine meets both.
    """
    best: dict[str, list[dict[str, float]]] = {name: [{} for _ in pictures] for name in sides}
    for turn in range(runs):
        for index, picture in enumerate(pictures):
            order = list(sides) if (turn + index) % 2 == 0 else list(sides)[::-1]
            for name in order:
                times = dict(sides[name](picture).times_ms)
                times["overhead"] = times["total"] - sum(times.get(stage, 0) for stage in NETWORKS)
                kept = best[name][index]
                for stage, value in times.items():
                    kept[stage] = min(kept.get(stage, value), value)
    return best


def summarise(times_ms: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    sums = {
        name: {stage: round(sum(one.get(stage, 0) for one in pictures), 2) for stage in pictures[0]}
        for name, pictures in times_ms.items()
    }
    ratios = {stage: round(sums["python"][stage] / value, 3) for stage, value in sums["c"].items() if value}
    return {f"{name}_ms": values for name, values in sums.items()} | {"python_over_c": ratios}


if __name__ == "__main__":
    main()
