"""Accuracy and parity reports become terminal tables."""

from __future__ import annotations

from rich.table import Table

from edgekd.measure.accuracy import AccuracyReport
from edgekd.measure.parity import ParityReport


def accuracy_table(report: AccuracyReport) -> Table:
    """Return one row a metric, in percent."""
    precision = ", ".join(f"{name} {value}" for name, value in report.precision.items())
    table = Table(title=f"{report.data}: {report.n_images} pictures, {report.n_objects} objects, {precision}")
    table.add_column("measured on")
    table.add_column("metric")
    table.add_column("%", justify="right")
    for part, values in _parts(report).items():
        for name, value in values.items():
            table.add_row(part, name, f"{100 * value:.1f}")
            part = ""
    return table


def parity_table(report: ParityReport) -> Table:
    """Return one row a comparison."""
    table = Table(title=f"against the reference: {report.n_images} pictures, {report.n_masks} masks")
    table.add_column("compared")
    table.add_column("value", justify="right")
    for name in type(report).model_fields:
        value = getattr(report, name)
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    return table


def _parts(report: AccuracyReport) -> dict[str, dict[str, float]]:
    parts = {"boxes": report.box, "masks": report.mask, "masks from the labels' boxes": report.gt_box_mask}
    return {name: values for name, values in parts.items() if values}
