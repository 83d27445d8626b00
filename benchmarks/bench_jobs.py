"""Pictures per second of `edgekd run` with one or several pictures at a time (`--jobs`) and so many threads for each.

    python benchmarks/bench_jobs.py --images $EDGEKD_ASSETS/data/nwpu_vhr10/images --pictures 60

The arms take turns, and all of them must find the same objects before a time is written. The bundle is of the shipped
crop segmenter and of one size, so that nothing compiles while the clock runs; all boxes of a picture are one batch of
the segmenter. Reading the files and writing results.json are part of the time, overlays and masks are not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from result_file import write_result

from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.models.crop_set import copy_shipped_crop
from edgekd.package_files import default_models
from edgekd.runtime.chain import Chain
from edgekd.runtime.results.writer import ResultOptions
from edgekd.runtime.run import RunOptions, run_pictures

PLAIN = ResultOptions(overlays=False, masks=False)
MAX_PX, MAX_CONFIDENCE = 0.5, 0.01


def objects_of(folder: Path) -> list[list[dict[str, Any]]]:
    """The objects of every picture of a run."""
    return [picture["objects"] for picture in json.loads((folder / "results.json").read_text())["pictures"]]


def check_same(first: list[list[dict[str, Any]]], other: list[list[dict[str, Any]]], name: str) -> None:
    """Compare what two runs found: classes exactly, boxes and confidences within rounding."""
    assert [len(objects) for objects in first] == [len(objects) for objects in other], f"{name} found other objects"
    for one, two in zip(itertools.chain(*first), itertools.chain(*other), strict=True):
        moved = max(abs(a - b) for a, b in zip(one["xyxy"], two["xyxy"], strict=True))
        changed = abs(one["confidence"] - two["confidence"])
        assert one["class_name"] == two["class_name"] and moved <= MAX_PX and changed <= MAX_CONFIDENCE, (
            name,
            one,
            two,
        )


def seconds(bundle: Path, pictures: list[Path], folder: Path, jobs: int, threads: int) -> float:
    """Run all pictures through an open bundle; opening and the first picture are not part of the time."""
    with Chain.open(bundle, threads) as chain:
        chain.warm_up()
        start = time.perf_counter()
        reports = list(run_pictures(chain, pictures, folder, RunOptions(jobs=jobs), PLAIN))
        took_s = time.perf_counter() - start
    assert all(report.state == "run" for report in reports), "a picture could not be run"
    return took_s


def measure(bundle: Path, pictures: list[Path], arms: list[tuple[int, int]], rounds: int, room: Path) -> dict[str, Any]:
    """Time the arms in turn; the fastest round of each counts."""
    times: dict[tuple[int, int], list[float]] = {arm: [] for arm in arms}
    for turn in range(rounds):
        for jobs, threads in arms:
            folder = room / f"{jobs}-{threads}-{turn}"
            times[jobs, threads].append(seconds(bundle, pictures, folder, jobs, threads))
            first = room / f"{arms[0][0]}-{arms[0][1]}-0"
            check_same(objects_of(first), objects_of(folder), folder.name)
    rows = [
        {"jobs": jobs, "threads": threads, "pictures_per_s": round(len(pictures) / min(took), 2), "seconds": took}
        for (jobs, threads), took in times.items()
    ]
    return {"arms": rows, "n_objects": sum(map(len, objects_of(first)))}


def main() -> None:
    """Build the bundle, measure, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arms", default="1x1,1x2,2x2,4x2", help="JOBSxTHREADS, with commas between them")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    arms = [(int(jobs), int(threads)) for jobs, threads in (arm.split("x") for arm in options.arms.split(","))]
    files = sorted(options.images.iterdir())
    pictures = files[:: max(1, len(files) // options.pictures)][: options.pictures]
    with tempfile.TemporaryDirectory() as name:
        room = Path(name)
        copy_shipped_crop(room / "models", default_models())
        build_bundle(room / "models", room / "bundle", BuildOptions(square=True), lambda line: None)
        result = measure(room / "bundle", pictures, arms, options.rounds, room)
    settings = {"n_pictures": len(pictures), "rounds": options.rounds, "kind": "crop", "statistic": "fastest round"}
    print(write_result("jobs", {"settings": settings, **result}, options.output))


if __name__ == "__main__":
    main()
