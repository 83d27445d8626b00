"""Does a chain's memory stay flat: 1,000 pictures of changing size and number of boxes through one bundle.

    python benchmarks/bench_memory.py BUNDLE -o benchmarks/results

The resident set is read after every 100 pictures; the first 200 warm buffers up and do not count.
"""

from __future__ import annotations

import argparse
import gc
import json
from pathlib import Path

import numpy as np
import psutil
from result_file import write_result

import edgekd
from edgekd.package_files import DEMO_PICTURE

N_PICTURES, STEP, WARM_UP = 1000, 100, 200


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    scene = edgekd.read_picture(DEMO_PICTURE)
    generator = np.random.default_rng(0)
    process = psutil.Process()
    resident_mib: dict[int, float] = {}
    with edgekd.load(arguments.bundle) as chain:
        for index in range(1, N_PICTURES + 1):
            height, width = generator.integers(100, 640), generator.integers(100, 960)
            chain(np.ascontiguousarray(scene[:height, :width]))
            if index % STEP == 0:
                gc.collect()
                resident_mib[index] = process.memory_info().rss / 2**20
    settled = [value for index, value in resident_mib.items() if index >= WARM_UP]
    result = {
        "n_pictures": N_PICTURES,
        "resident_mib": resident_mib,
        "growth_mib": settled[-1] - settled[0],
    }
    write_result("memory", result, arguments.output)
    print(json.dumps({"growth_mib": result["growth_mib"], "resident_mib": resident_mib}))


if __name__ == "__main__":
    main()
