"""`edgekd bench BUNDLE` and `edgekd bench compare A.json B.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.values import DefaultGroup

app = typer.Typer(help="Latency of a bundle by stage; compare reports.", cls=DefaultGroup)


@app.command("default")
def bench(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    sources: Annotated[list[Path] | None, typer.Argument(help="pictures to run; default: the shipped one")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a bar plot, .png or .svg")] = None,
    min_runs: Annotated[int, typer.Option(help="at least this many runs", min=1)] = 20,
    min_seconds: Annotated[float, typer.Option(help="and at least this long", min=0)] = 5.0,
    warm_up: Annotated[int, typer.Option(help="runs before the clock starts", min=0)] = 3,
    confidence: Annotated[float, typer.Option(help="lowest class probability")] = 0.25,
    threads: Annotated[int | None, typer.Option(help="CPU threads", min=1)] = None,
) -> None:
    """Measure every stage and the whole chain: percentiles, machine, versions, warnings.

    `edgekd bench compare A.json B.json` puts two reports side by side.
    """
    from edgekd.cli.console import log, out, write_json
    from edgekd.measure.latency import BenchOptions, measure_latency
    from edgekd.measure.report import latency_table, plot_latency
    from edgekd.runtime.chain import ChainOptions
    from edgekd.runtime.detect import DetectOptions

    options = BenchOptions(warm_up_runs=warm_up, min_runs=min_runs, min_seconds=min_seconds, n_threads=threads)
    chain_options = ChainOptions(detect=DetectOptions(confidence=confidence))
    with log.status("measuring"):
        report = measure_latency(bundle, sources or (), options, chain_options)
    out.print(latency_table(report))
    for warning in report.warnings:
        log.print(f"warning: {warning}")
    write_json(json_file, report)
    if plot:
        plot_latency(report, plot)


@app.command("compare")
def compare_reports(
    a: Annotated[Path, typer.Argument(help="report of edgekd bench --json")],
    b: Annotated[Path, typer.Argument(help="another one, of the same pictures on the same machine")],
) -> None:
    """Put two reports side by side; unlike runs are refused."""
    from rich.table import Table

    from edgekd.cli.console import out
    from edgekd.measure.compare import compare, read_report

    table = Table("stage", f"{a.name} p50 ms", f"{b.name} p50 ms", "speed-up")
    for name, (a_ms, b_ms, speedup) in compare(read_report(a), read_report(b)).items():
        table.add_row(name.replace("_", " "), f"{a_ms:.1f}", f"{b_ms:.1f}", f"{speedup:.2f}x")
    out.print(table)
