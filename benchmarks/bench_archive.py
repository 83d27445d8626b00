"""An archive with Ray Data: pictures per hour of this machine, and what a cluster would do by calculation.

    python benchmarks/bench_archive.py --assets DIR

The validation pictures of NWPU VHR-10 go through `edgekd.integrations.ray.map_bundle` on a local cluster; the clock
runs from the first row that comes back to the last, so that the start of Ray and of the workers is not counted (it is
noted beside). The pictures per hour of a cluster are this number times its machines: a calculation, not a measurement,
which leaves out what a shared file system and the network take. Needs `pip install 'edgekd[ray]'`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_roundtrip import build
from mosaics import validation_set
from result_file import write_result

MACHINES = (10, 100)


def main() -> None:
    arguments = parse()
    paths = [str(picture.path.absolute()) for picture in validation_set(arguments.assets).pictures][
        : arguments.pictures
    ]
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        results = measure(build(work), paths, arguments.workers)
    settings = {
        "pictures": "NWPU VHR-10, validation, whole", "n_pictures": len(paths), "workers": arguments.workers,
        "threads_per_worker": 1, "models": "shipped detector and crop segmenter, fp32",
    }  # fmt: skip
    print(write_result("archive", {"settings": settings, "results": results}, arguments.output), results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with data/")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--pictures", type=int, default=104, help="at most so many")
    parser.add_argument("--work", type=Path, help="keep the bundle here, and take one that is there")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def measure(bundle: Path, paths: list[str], workers: int) -> dict[str, Any]:
    import ray

    from edgekd.integrations.ray import ArchiveOptions, map_bundle

    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    began, first, rows = time.perf_counter(), 0.0, []
    data = ray.data.from_items([{"path": path} for path in paths], override_num_blocks=len(paths))
    for row in map_bundle(data, bundle, ArchiveOptions(workers=workers)).iter_rows():
        first = first or time.perf_counter()
        rows.append(row)
    per_hour = (len(rows) - 1) / (time.perf_counter() - first) * 3600
    ray.shutdown()
    if sorted(row["path"] for row in rows) != sorted(paths) or any(row["reason"] for row in rows):
        raise SystemExit("rows are missing or could not be read; no time is written")
    return {
        "n_objects": sum(int(row["n_objects"]) for row in rows),
        "measured_pictures_per_hour": round(per_hour),
        "seconds_to_the_first_picture": round(first - began, 1),
        "calculated_pictures_per_hour": {f"{n} machines": round(per_hour * n) for n in MACHINES},
    }


if __name__ == "__main__":
    main()
