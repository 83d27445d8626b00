"""The ways to a mask against each other: same pictures, same boxes, same process, accuracy first, then time.

    python benchmarks/bench_masks.py --data annotations.json --split nwpu_seed0.json NAME=BUNDLE... [--threads 2]

Every bundle is measured on the validation pictures: with the labelled boxes (mean IoU by size), and with its own
detector (box AP, mask AP). The filled box is the row that every way has to beat. Then each takes 1, 5, 20 and 100
boxes of one picture of 960x640 px, turn by turn; the detector is left out, since all have the same. What the result
file knows of a bundle's accuracy, by its hash, is not measured again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from result_file import result_path, write_result

from edgekd.data.labels import LabelledSet
from edgekd.data.read import read_labels
from edgekd.files import sha256_of
from edgekd.measure.accuracy import EvaluateOptions, evaluate_chain
from edgekd.package_files import DEMO_PICTURE
from edgekd.runtime.chain import Chain
from edgekd.runtime.sources import read_picture
from edgekd.types import Float32Array, UInt8Array

N_BOXES = (1, 5, 20, 100)
SIZES = (("small", 0, 32**2), ("medium", 32**2, 96**2), ("large", 96**2, np.inf))


def main() -> None:
    arguments = parse()
    bundles = {name: Path(folder) for name, folder in (text.split("=", 1) for text in arguments.bundles)}
    labels = read_labels(arguments.data, arguments.images, split="train").without_crowds()
    if arguments.split:
        labels = labels.only(json.loads(arguments.split.read_text())["validation"])
    labels = labels.first(arguments.limit)
    known = known_accuracy(result_path("masks", arguments.output))
    results: dict[str, Any] = {"box fill": {"gt_box_mask": box_fill(labels)}}
    chains = {name: Chain.open(folder, arguments.threads) for name, folder in bundles.items()}
    for name, chain in chains.items():
        results[name] = describe(bundles[name], chain)
        if results[name]["bundle_sha256"] in known:
            results[name] = known[results[name]["bundle_sha256"]]
        elif name not in arguments.time_only:
            results[name] |= accuracy(chain, labels)
            print(name, json.dumps(results[name]), flush=True)
    picture = read_picture(DEMO_PICTURE)
    boxes = next(iter(chains.values())).detect(picture).xyxy
    for name, times in measure(chains, picture, boxes, arguments.runs).items():
        results[name]["segmenter_ms"] = times
    for chain in chains.values():
        chain.close()
    write(arguments, results, labels)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", metavar="NAME=BUNDLE")
    parser.add_argument("--data", type=Path, required=True, help="labels with masks")
    parser.add_argument("--images", type=Path, help="folder of the pictures of a COCO JSON")
    parser.add_argument("--split", type=Path, help="JSON with a list `validation` of file names")
    parser.add_argument("--time-only", nargs="*", default=[], metavar="NAME", help="bundles whose accuracy is known")
    parser.add_argument("--limit", type=int, help="most pictures")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def describe(folder: Path, chain: Chain) -> dict[str, Any]:
    """Kind, precision and size of what makes the masks."""
    stages = {name: stage for name, stage in chain.manifest.stages.items() if name != "detector"}
    n_bytes = sum((folder / file.name).stat().st_size for stage in stages.values() for file in stage.files)
    return {
        "kind": chain.manifest.kind,
        "precision": {name: stage.precision for name, stage in stages.items()},
        "segmenter_mb": round(n_bytes / 1e6, 2),
        "bundle_sha256": sha256_of(folder / "manifest.json"),
    }


def known_accuracy(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of an earlier result that hold an accuracy, by the hash of their bundle, without their times."""
    rows = json.loads(path.read_text())["results"].values() if path.is_file() else ()
    return {
        row["bundle_sha256"]: {key: value for key, value in row.items() if key != "segmenter_ms"}
        for row in rows
        if "mask" in row
    }


def accuracy(chain: Chain, labels: LabelledSet) -> dict[str, Any]:
    """Box AP, mask AP and mean IoU with labelled boxes, rounded to a hundredth of a point."""
    metrics, _ = evaluate_chain(chain, labels, EvaluateOptions(detector=True, segmenter=True))
    return {part: {key: round(float(value), 4) for key, value in values.items()} for part, values in metrics.items()}


def box_fill(labels: LabelledSet) -> dict[str, float]:
    """Mean IoU of the labelled box, filled, with the mask."""
    ious, areas = [], []
    for picture in labels.pictures:
        for index in range(len(picture)):
            truth = picture.mask(index).astype(np.bool_)
            left, top, right, bottom = picture.xyxy[index].round().astype(int)
            inside = int(truth[max(top, 0) : bottom, max(left, 0) : right].sum())
            ious.append(inside / max(int(truth.sum()) + (right - left) * (bottom - top) - inside, 1))
            areas.append(picture.area_px[index])
    found, area = np.array(ious), np.array(areas)
    sized = {f"miou_{name}": float(found[(area >= low) & (area < high)].mean()) for name, low, high in SIZES}
    return {"miou": round(float(found.mean()), 4)} | {name: round(value, 4) for name, value in sized.items()}


def measure(
    chains: dict[str, Chain], picture: UInt8Array, boxes: Float32Array, n_runs: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds from boxes to masks, fastest and median, all chains in turn for every number of boxes."""
    times: dict[str, dict[str, dict[str, float]]] = {name: {} for name in chains}
    for n_boxes in N_BOXES:
        rows = np.arange(n_boxes) % len(boxes)
        taken: dict[str, list[float]] = {name: [] for name in chains}
        for _ in range(n_runs + 1):  # the first run of each warms up
            for name, chain in chains.items():
                began = time.perf_counter()
                chain(picture, boxes=boxes[rows])
                taken[name].append((time.perf_counter() - began) * 1e3)
        for name, values in taken.items():
            kept = values[1:]
            times[name][str(n_boxes)] = {"min": round(min(kept), 2), "median": round(float(np.median(kept)), 2)}
    return times


def write(arguments: argparse.Namespace, results: dict[str, Any], labels: LabelledSet) -> None:
    report = {
        "settings": {
            "threads": arguments.threads,
            "runs": arguments.runs,
            "n_pictures": len(labels),
            "n_objects": labels.n_objects,
            "picture": DEMO_PICTURE.name,
            "time": "boxes to masks without the detector; fastest and median run, the chains in turn",
        },
        "results": results,
    }
    print(write_result("masks", report, arguments.output))
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
