"""One table of several kinds: a column per bundle, a row per stage that any of them has, the total last."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from edgekd.measure.latency import BenchOptions, LatencyReport, measure_latency
from edgekd.measure.report import kinds_table


@pytest.fixture(scope="module")
def report(shipped_bundle: Path) -> LatencyReport:
    return measure_latency(shipped_bundle, options=BenchOptions(warm_up_runs=0, min_runs=1, min_seconds=0))


def test_every_stage_has_a_row_and_every_kind_a_column(report: LatencyReport) -> None:
    stages = {name.replace("encoder", "other"): times for name, times in report.stages.items()}
    table = kinds_table({"sam": report, "crop": report.model_copy(update={"stages": stages})})
    console = Console(width=200, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    assert any("sam" in line and "crop" in line for line in lines)
    rows = [line for line in lines if line.startswith("│")]
    assert sum("encoder" in row or "other" in row for row in rows) == 4
    assert "total" in rows[-1] and f"{report.stages['total'].p50_ms:.1f}" in rows[-1]
