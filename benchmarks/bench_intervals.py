"""How often do intervals of 95 % hold the truth? Simulated runs and pictures whose truth is known.

    python benchmarks/bench_intervals.py

`runs` are pairs of series of times whose ratio is 1.25 and whose neighbours are alike, as `bench compare` meets them;
differences per picture have a mean of 0.12, as `evaluate --against` meets them: `normal`, `heavy` (Student's t with
three degrees of freedom) and `skew` (six of ten are zero, the others exponential). Both go through the functions of
the package. `plain` is the same bootstrap with the usual percentiles 2.5 and 97.5, which were taken before.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from result_file import write_result

from edgekd.measure import difference, samples
from edgekd.measure.accuracy import PictureScore

RATIO, MEAN = 1.25, 0.12
RUNS, PICTURES = (20, 40, 100, 300), (8, 20, 50, 104)
PLAIN = (2.5, 97.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name, percents in (("expanded", samples.tail_percents), ("plain", lambda n: PLAIN)):
        with patch.object(samples, "tail_percents", percents), patch.object(difference, "tail_percents", percents):
            results[name] = {
                "runs": {n: share(lambda g, n=n: of_runs(n, g), arguments.trials) for n in RUNS},  # type: ignore[misc]
                **{
                    kind: {n: share(lambda g, n=n, d=draw: of_pictures(d(n, g)), arguments.trials) for n in PICTURES}  # type: ignore[misc]
                    for kind, draw in DIFFERENCES.items()
                },
            }
        print(json.dumps({name: results[name]}, indent=1), flush=True)
    print(write_result("intervals", {"settings": {"trials": arguments.trials}, "results": results}, arguments.output))


def share(trial: Callable[[np.random.Generator], bool], n_trials: int) -> float:
    """The share of trials whose interval holds the truth."""
    generator = np.random.default_rng(0)
    return sum(trial(generator) for _ in range(n_trials)) / n_trials


def of_runs(n: int, generator: np.random.Generator) -> bool:
    found = samples.speed_up(RATIO * drifting(n, generator), drifting(n, generator), is_paired=False)
    return found.low is not None and found.high is not None and found.low <= RATIO <= found.high


def drifting(n: int, generator: np.random.Generator) -> Any:
    """Runs that are like their neighbours, as those of a machine with other work."""
    return 1 + 0.5 * np.convolve(generator.normal(0, 1, n + 3), np.ones(4) / 4, "valid").clip(-1.5, 1.5)


def of_pictures(gaps: np.ndarray) -> bool:
    scores = [PictureScore(name=str(i), n_objects=1, box_f1=float(gap)) for i, gap in enumerate(gaps)]
    zero = [PictureScore(name=score.name, n_objects=1, box_f1=0.0) for score in scores]
    found = difference.paired_difference(scores, zero)["box_f1"]
    return found.low <= MEAN <= found.high


DIFFERENCES: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "normal": lambda n, g: g.normal(MEAN, 0.2, n),
    "heavy": lambda n, g: MEAN + 0.1 * g.standard_t(3, n),
    "skew": lambda n, g: np.where(g.random(n) < 0.6, 0, g.exponential(MEAN / 0.4, n)),
}


if __name__ == "__main__":
    main()
