"""`edgekd bench BUNDLE` and `edgekd bench compare A.json B.json`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli.values import DefaultGroup

if TYPE_CHECKING:
    from edgekd.runtime.chain import ChainOptions

app = typer.Typer(help="Latency of a bundle by stage; compare reports.", cls=DefaultGroup)


@app.command("default")
def bench(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    sources: Annotated[list[Path] | None, typer.Argument(help="pictures to run; default: the shipped one")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="write the table as CSV")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a bar plot, .png or .svg")] = None,
    min_runs: Annotated[int, typer.Option(help="at least this many runs", min=1)] = 20,
    min_seconds: Annotated[float, typer.Option(help="and at least this long", min=0)] = 5.0,
    warm_up: Annotated[int, typer.Option(help="runs before the clock starts", min=0)] = 3,
    confidence: Annotated[float, typer.Option(help="lowest class probability")] = 0.25,
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
    throughput: Annotated[int, typer.Option(help="measure so many chains at once as well", min=0)] = 0,
) -> None:
    """Measure every stage and the whole chain: percentiles, machine, versions, clocks, warnings.

    `edgekd bench compare A B` puts two reports or two bundles side by side.
    """
    from edgekd.cli.console import log, out, write_json, write_text
    from edgekd.measure.latency import BenchOptions, measure_latency
    from edgekd.measure.report import latency_csv, latency_table, plot_latency, state_lines

    options = BenchOptions(
        warm_up_runs=warm_up, min_runs=min_runs, min_seconds=min_seconds, n_threads=threads, n_chains=throughput
    )
    with log.status("measuring"):
        report = measure_latency(bundle, sources or (), options, _confident(confidence))
    out.print(latency_table(report))
    for line in state_lines(report):
        out.print(line, markup=False)
    for warning in report.warnings:
        log.print(f"warning: {warning}")
    write_json(json_file, report)
    if csv_file:
        write_text(csv_file, latency_csv(report))
    if plot:
        plot_latency(report, plot)


@app.command("compare")
def compare_reports(
    a: Annotated[Path, typer.Argument(help="report of edgekd bench --json, or a bundle")],
    b: Annotated[Path, typer.Argument(help="another one, of the same pictures on the same machine; or a bundle")],
    sources: Annotated[list[Path] | None, typer.Argument(help="pictures for two bundles; default: the shipped")] = None,
    min_runs: Annotated[int, typer.Option(help="at least this many runs of two bundles", min=1)] = 20,
    min_seconds: Annotated[float, typer.Option(help="and at least this long", min=0)] = 5.0,
    confidence: Annotated[float, typer.Option(help="lowest class probability")] = 0.25,
) -> None:
    """Put two reports side by side, or run two bundles in turns; unlike runs are refused, speed-ups have intervals."""
    from edgekd.cli.console import log, out
    from edgekd.measure.compare import compare, read_report
    from edgekd.measure.interleaved import compare_bundles
    from edgekd.measure.latency import BenchOptions
    from edgekd.measure.report import comparison_table

    if a.is_dir() and b.is_dir():
        options = BenchOptions(min_runs=min_runs, min_seconds=min_seconds)
        with log.status("measuring"):
            found = compare_bundles(a, b, sources or (), options, _confident(confidence))
    else:
        found = compare(read_report(a), read_report(b))
    out.print(comparison_table((a.name, b.name), found))


def _confident(confidence: float) -> ChainOptions:
    from edgekd.runtime.chain import ChainOptions
    from edgekd.runtime.detect import DetectOptions

    return ChainOptions(detect=DetectOptions(confidence=confidence))
