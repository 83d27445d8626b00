"""Two bundles on the same labelled pictures: mean differences per picture, with paired bootstrap intervals.

Two accuracy reports go in; a report that can be printed and kept as JSON comes out. Pictures are drawn with
replacement, both sides of a picture together, so that what is hard for both cancels out. The percentiles are those of
`samples.tail_percents`. An interval of fewer than 50 pictures holds the truth less often than it says where most
differences are zero and few are large (`benchmarks/bench_intervals.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from edgekd.measure.accuracy import AccuracyReport, PictureScore
from edgekd.measure.samples import tail_percents

N_RESAMPLED = 10_000
MEASURES: tuple[Literal["box_f1", "miou"], ...] = ("box_f1", "miou")


class Difference(NamedTuple):
    """One measure, 0..1: mean over the pictures of bundle minus reference, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float
    n_pictures: int


class DifferenceReport(BaseModel):
    """The content of a difference's JSON; `measures` holds those that both bundles have."""

    model_config = ConfigDict(frozen=True)

    kind: str = "difference"
    edgekd_version: str
    bundle_sha256: str
    reference_sha256: str
    data: str
    n_resampled: int = N_RESAMPLED
    measures: dict[str, Difference]


def difference_between(bundle: AccuracyReport, reference: AccuracyReport) -> DifferenceReport:
    """Compare two accuracy reports of the same labels, picture by picture."""
    return DifferenceReport(
        edgekd_version=bundle.edgekd_version,
        bundle_sha256=bundle.bundle_sha256,
        reference_sha256=reference.bundle_sha256,
        data=bundle.data,
        measures=paired_difference(bundle.pictures, reference.pictures),
    )


def paired_difference(
    scores: Sequence[PictureScore], reference: Sequence[PictureScore], seed: int = 0
) -> dict[str, Difference]:
    """Mean difference from a reference over the same pictures, with a 95 % bootstrap interval from `seed`.

    Returns:
        One difference per name of `MEASURES` that both sides have on at least one picture.
    """
    theirs = {score.name: score for score in reference}
    found: dict[str, Difference] = {}
    for measure in MEASURES:
        pairs = [
            (getattr(score, measure), getattr(theirs[score.name], measure)) for score in scores if score.name in theirs
        ]
        gaps: NDArray[np.float64] = np.array([a - b for a, b in pairs if a is not None and b is not None])
        if len(gaps):
            drawn = np.random.default_rng(seed).integers(len(gaps), size=(N_RESAMPLED, len(gaps)))
            low, high = np.percentile(gaps[drawn].mean(axis=1), tail_percents(len(gaps)))
            found[measure] = Difference(float(gaps.mean()), float(low), float(high), len(gaps))
    return found


def difference_lines(report: DifferenceReport) -> list[str]:
    """Say a difference in percentage points, one line per measure."""
    lines = []
    for measure, found in report.measures.items():
        mean, low, high = (100 * value for value in found[:3])
        lines.append(f"{measure} per picture, points over the reference: {mean:+.2f} [{low:+.2f}, {high:+.2f}]")
    return lines
