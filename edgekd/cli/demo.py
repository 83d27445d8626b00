"""`edgekd demo`: build, run and bench the shipped models on the shipped picture; needs the core install only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", "--out", help="folder for bundle, overlay and reports")
    ] = Path("edgekd-demo"),
) -> None:
    """Shipped models and picture in; bundle, overlay picture, result JSON and a latency table out."""
    from edgekd.cli.console import log, out, picture_line
    from edgekd.deploy.demonstration import demonstrate
    from edgekd.measure.report import latency_table

    with log.status("building, running, measuring"):
        shown = demonstrate(output, log.print)
    out.print(picture_line(shown.picture))
    out.print(latency_table(shown.latency))
    for warning in shown.latency.warnings:
        log.print(f"warning: {warning}")
    for name, path in shown.files.items():
        out.print(f"{name:9} {path}")
    out.print(f"took      {shown.seconds:.1f} s")
