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
    """Shipped models and picture in; for each kind a bundle, overlay and result JSON, and one latency table out."""
    from edgekd.cli.console import log, out, picture_line
    from edgekd.deploy.demonstration import demonstrate
    from edgekd.measure.report import kinds_table

    with log.status("building, running, measuring"):
        shown = demonstrate(output, log.print)
    for kind, way in shown.ways.items():
        out.print(f"{kind}: {picture_line(way.picture)}")
        for warning in way.latency.warnings:
            log.print(f"warning: {kind}: {warning}")
    out.print(kinds_table({kind: way.latency for kind, way in shown.ways.items()}))
    for name, path in shown.files.items():
        out.print(f"{name:14} {path}")
    out.print(f"took           {shown.seconds:.1f} s")
