"""What `edgekd evaluate` measures of a bundle, in one call: accuracy, conditions, and the distance to another bundle.

A job goes in; the reports come out in the order in which they were measured, each with a table for people.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from edgekd.data.labels import LabelledSet
from edgekd.data.read import read_labels
from edgekd.errors import InputError
from edgekd.measure.accuracy import AccuracyReport, EvaluateOptions, accuracy_table, evaluate
from edgekd.measure.difference import DifferenceReport, difference_between, difference_lines
from edgekd.measure.parity import ParityReport, compare_with, parity_table
from edgekd.measure.robustness import RobustnessReport, measure_robustness, robustness_table
from edgekd.measure.worst_cases import write_worst_cases

Report = AccuracyReport | RobustnessReport | DifferenceReport | ParityReport
Tracked = Callable[[str], Callable[[Sequence[Any]], Iterable[Any]]]
"""From what is being done to what shows the progress of it."""


@dataclass(frozen=True, kw_only=True)
class EvaluationJob:
    """What is measured.

    Attributes:
        bundle: of which.
        data: labels of any format; None compares with `against` on `images` alone.
        images: folder of the pictures of `data`, or those to compare on.
        against: another bundle.
        split: part of an Ultralytics data file.
        limit: take only the first so many pictures.
        options: as for `evaluate`.
        robustness: also under conditions; see `edgekd.measure.robustness`.
        grid: picture of the worst cases to write.
        n_threads: of the CPU; None leaves it to the backend.
    """

    bundle: Path
    data: Path | None = None
    images: Path | None = None
    against: Path | None = None
    split: str = "val"
    limit: int | None = None
    options: EvaluateOptions = field(default_factory=EvaluateOptions)
    robustness: bool = False
    grid: Path | None = None
    n_threads: int | None = None

    def __post_init__(self) -> None:
        """Check that what is asked for can be measured.

        Raises:
            InputError: labels or pictures are missing.
        """
        if self.data is not None:
            return
        if self.against is None or self.images is None:
            raise InputError("nothing to measure on: give labels as `data`, or another bundle `against` with `images`")
        if self.grid is not None:
            raise InputError("grid shows the worst pictures by their labels and no labels were given; give `data`")
        if self.robustness:
            raise InputError("robustness is measured on labels and no labels were given; give `data`")


def measure_bundle(job: EvaluationJob, tracked: Tracked = lambda text: iter) -> Iterator[Report]:
    """Yield the reports: accuracy, conditions, difference in accuracy, parity, as far as they were asked for.

    Raises:
        EdgekdError: as for `read_labels`, `evaluate` and `compare_with`.
    """
    labels = read_labels(job.data, job.images, job.split, job.limit) if job.data else None
    if labels is not None:
        yield from _measured(job, labels, tracked)
    if job.against is not None:
        yield compare_with(job.against, job.bundle, labels or job.images or Path(), job.limit, tracked("comparing"))


def _measured(job: EvaluationJob, labels: LabelledSet, tracked: Tracked) -> Iterator[Report]:
    accuracy = evaluate(job.bundle, labels, job.options, tracked("evaluating"), job.n_threads)
    yield accuracy
    if job.robustness:
        yield measure_robustness(job.bundle, labels, job.options, tracked("under conditions"), job.n_threads)
    if job.against is not None:
        reference = evaluate(job.against, labels, job.options, tracked("evaluating"), job.n_threads)
        yield difference_between(accuracy, reference)
    if job.grid is not None:
        write_worst_cases(job.grid, job.bundle, labels, accuracy)


def table_of(report: Report) -> Table | str:
    """Return what is shown of a report."""
    if isinstance(report, AccuracyReport):
        return accuracy_table(report)
    if isinstance(report, RobustnessReport):
        return robustness_table(report)
    if isinstance(report, ParityReport):
        return parity_table(report)
    return "\n".join(difference_lines(report))


def reports_text(reports: Sequence[Report]) -> str:
    """Return the reports as JSON: one alone, several as a list."""
    text = ",\n".join(report.model_dump_json(indent=1) for report in reports)
    return (text if len(reports) == 1 else f"[{text}]") + "\n"
