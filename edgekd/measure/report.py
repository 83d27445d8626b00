"""Reports become tables and plots: for the terminal (rich), for documents (Markdown), for eyes (matplotlib)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from edgekd.errors import BackendUnavailable
from edgekd.measure.latency import LatencyReport
from edgekd.measure.samples import Distribution, SpeedUp

COLUMNS = ("stage", "p50 ms", "p90 ms", "p99 ms", "mean ms", "min ms", "max ms")


def latency_rows(report: LatencyReport) -> list[tuple[str, ...]]:
    """Return one row per stage with the values of `COLUMNS`."""
    rows = []
    for name, d in report.stages.items():
        values = (d.p50_ms, d.p90_ms, d.p99_ms, d.mean_ms, d.min_ms, d.max_ms)
        rows.append((name.replace("_", " "), *(f"{value:.1f}" for value in values)))
    return rows


def latency_table(report: LatencyReport) -> Table:
    """Return the report as a terminal table."""
    precision = ", ".join(f"{name} {value}" for name, value in report.precision.items())
    table = Table(title=f"{report.machine.cpu}, {report.backend} {report.backend_version}: {precision}")
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="left" if index == 0 else "right")
    for row in latency_rows(report):
        table.add_row(*row, style="bold" if row[0] == "total" else None)
    return table


def kinds_table(reports: Mapping[str, LatencyReport]) -> Table:
    """Return one table of several bundles on one machine: the median of every stage in milliseconds, a column each."""
    first = next(iter(reports.values()))
    table = Table(title=f"{first.machine.cpu}, {first.backend} {first.backend_version}: p50 ms")
    table.add_column("stage")
    for name, report in reports.items():
        words = ", ".join(f"{stage} {precision}" for stage, precision in report.precision.items())
        table.add_column(f"{name}\n{words}", justify="right")
    stages = dict.fromkeys(stage for report in reports.values() for stage in report.stages if stage != "total")
    for stage in (*stages, "total"):
        found = (report.stages.get(stage) for report in reports.values())
        values = ("" if times is None else f"{times.p50_ms:.1f}" for times in found)
        table.add_row(stage.replace("_", " "), *values, style="bold" if stage == "total" else None)
    return table


def comparison_table(names: tuple[str, str], found: Mapping[str, SpeedUp]) -> Table:
    """Return the medians of two and the speed-up with its 95 % interval; bold where one is certainly faster."""
    table = Table("stage", f"{names[0]} p50 ms", f"{names[1]} p50 ms", "speed-up", "95 % interval")
    for name, row in found.items():
        interval = "" if row.low is None else f"{row.low:.2f} to {row.high:.2f}"
        words = name.replace("_", " "), f"{row.a_ms:.1f}", f"{row.b_ms:.1f}", f"{row.ratio:.2f}x", interval
        table.add_row(*words, style="bold" if row.is_certain else None)
    return table


def state_lines(report: LatencyReport) -> list[str]:
    """Return what the device did: where pictures were prepared, clocks, temperatures, and several chains at once."""
    lines = [f"pictures are prepared on the {report.pictures}"]
    for label, state in (("before", report.before), ("after", report.after)):
        words = [f"{name} {clock.now_mhz:.0f} MHz" for name, clock in state.clocks.items()][:4]
        words += [f"{name} {value:.0f} C" for name, value in state.temperatures_c.items()][:4]
        if words:
            lines.append(f"{label}: {', '.join(words)}")
    if (found := report.throughput) is not None:
        lines.append(
            f"{found.n_chains} chains at once: {found.pictures_per_s:.1f} pictures per second "
            f"(one chain: {report.throughput_per_s:.1f}), p50 {found.latency.p50_ms:.1f} ms per picture"
        )
    return lines


def latency_csv(report: LatencyReport) -> str:
    """Return one line per stage as CSV: machine, backend, stage and the numbers of its distribution."""
    numbers = tuple(Distribution.model_fields)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("machine", "backend", "stage", *numbers))
    machine = report.machine.jetson or report.machine.gpu or report.machine.cpu
    for name, values in report.stages.items():
        row = (f"{getattr(values, number):.6g}" for number in numbers)
        writer.writerow((machine, f"{report.backend} {report.backend_version}", name, *row))
    return text.getvalue()


def latency_markdown(report: LatencyReport) -> str:
    """Return the report as a Markdown table."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in latency_rows(report)]
    return "\n".join(lines) + "\n"


def plot_latency(report: LatencyReport, path: Path) -> None:
    """Draw p50 and p99 of every stage as bars into a PNG or SVG file.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise BackendUnavailable(f"matplotlib is missing ({error}); install it: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = [name for name in report.stages if name != "total"]
    p50 = [report.stages[name].p50_ms for name in names]
    p99 = [report.stages[name].p99_ms for name in names]
    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(names) + 1.5), layout="constrained")
    axes.barh(names, p99, color="#c9d6e8", label="p99")
    axes.barh(names, p50, color="#2f5d92", label="p50", height=0.5)
    axes.invert_yaxis()
    axes.set_xlabel("latency_ms")
    axes.set_title(f"{report.machine.cpu}, {report.backend}: total p50 {report.stages['total'].p50_ms:.1f} ms")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
