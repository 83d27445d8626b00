"""Paired comparisons of a few seeds: two lists of results, seed by seed, to a mean difference and its interval."""

from __future__ import annotations

from collections.abc import Sequence

from scipy.stats import ttest_rel


def paired(values: Sequence[float], baseline: Sequence[float]) -> dict[str, object]:
    """Mean of `values` - `baseline` and its 95 % Student interval, no interval for a single pair."""
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    mean = sum(differences) / len(differences)
    if len(differences) < 2:
        return {"mean": round(mean, 5), "interval_95": None}
    interval = ttest_rel(values, baseline).confidence_interval(0.95)
    return {"mean": round(mean, 5), "interval_95": [round(float(interval.low), 5), round(float(interval.high), 5)]}
