"""Times of many runs: summarised as percentiles, and compared with an interval for runs that are not independent.

A run is like the one before it (clocks, caches, other work), so intervals come from a bootstrap of blocks of runs
(Kuensch 1989), not from the spread of single ones. The usual percentiles of a bootstrap are too narrow for few values,
so wider ones are taken (the expanded percentile interval of Hesterberg 2015, doi 10.1080/00031305.2015.1089789).
`benchmarks/bench_intervals.py` counts how often the intervals hold the truth.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

N_RESAMPLES = 1000


class Distribution(BaseModel):
    """Milliseconds of one stage over all runs."""

    model_config = ConfigDict(frozen=True)

    n: int
    min_ms: float
    mean_ms: float
    std_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class SpeedUp(BaseModel):
    """How many times faster the second of two is: ratio of the medians and its 95 % interval."""

    model_config = ConfigDict(frozen=True)

    a_ms: float
    b_ms: float
    ratio: float
    low: float | None = None
    high: float | None = None

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves out 1: one of the two is faster."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high


def distribution(samples_ms: Sequence[float]) -> Distribution:
    """Summarise samples in milliseconds; percentiles interpolate linearly."""
    values = np.asarray(samples_ms, np.float64)
    p50, p90, p99 = np.percentile(values, [50, 90, 99])
    return Distribution(
        n=len(values),
        min_ms=float(values.min()),
        mean_ms=float(values.mean()),
        std_ms=float(values.std()),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        max_ms=float(values.max()),
    )


def speed_up(a_ms: Sequence[float], b_ms: Sequence[float], is_paired: bool) -> SpeedUp:
    """Compare two lists of times, in the order in which they were measured.

    Args:
        a_ms, b_ms: at least eight each; fewer give no interval.
        is_paired: the runs of the two took turns, so that both are resampled together and what disturbed both cancels.
    """
    a, b = np.asarray(a_ms, np.float64), np.asarray(b_ms, np.float64)
    middle = float(np.median(a)), float(np.median(b))
    result = SpeedUp(a_ms=middle[0], b_ms=middle[1], ratio=middle[0] / middle[1])
    if min(len(a), len(b)) < 8:
        return result
    generator = np.random.default_rng(0)
    rows_a = _block_rows(len(a), generator)
    rows_b = rows_a if is_paired and len(a) == len(b) else _block_rows(len(b), generator)
    ratios = np.median(a[rows_a], axis=1) / np.median(b[rows_b], axis=1)
    low, high = np.percentile(
        ratios, tail_percents(min(len(a) / _block_length(len(a)), len(b) / _block_length(len(b))))
    )
    return result.model_copy(update={"low": float(low), "high": float(high)})


def tail_percents(n: float) -> tuple[float, float]:
    """Return the percentiles of a bootstrap distribution that bound an interval of 95 %.

    Resampled means of n independent values spread by sqrt((n - 1) / n) too little, and their tails are those of a
    normal distribution instead of Student's t with n - 1 degrees of freedom; the percentiles make up for both.

    Args:
        n: independent values, or blocks of values, 2 or more; fewer count as 2.
    """
    n = max(n, 2.0)
    z = NormalDist().inv_cdf(0.975)
    powers = [z, z**3 + z, 5 * z**5 + 16 * z**3 + 3 * z, 3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z]
    terms = zip(powers, (1, 4, 96, 384), range(4), strict=True)  # Abramowitz and Stegun 26.7.5, Student's t
    t = sum(power / (divisor * (n - 1) ** order) for power, divisor, order in terms)
    tail = 100 * NormalDist().cdf(-t * math.sqrt(n / (n - 1)))
    return tail, 100 - tail


def _block_length(n: int) -> int:
    """Runs per block: twice the usual n ** (1/3), for which too few of the intervals held the truth."""
    return int(max(1, round(2 * n ** (1 / 3))))


def _block_rows(n: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Rows of every resample: blocks of neighbouring runs, one after another."""
    length = _block_length(n)
    starts = generator.integers(0, n - length + 1, (N_RESAMPLES, -(-n // length)))
    rows = starts[:, :, None] + np.arange(length)
    return np.asarray(rows.reshape(N_RESAMPLES, -1)[:, :n], np.intp)
