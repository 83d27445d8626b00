"""`edgekd demo`: build, run and bench the shipped models on the shipped picture; needs the core install only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.choices import DemoKind


def demo(
    output: Annotated[
        Path, typer.Option("-o", "--output", "--out", help="folder for bundle, overlay and reports")
    ] = Path("edgekd-demo"),
    kind: Annotated[
        DemoKind | None, typer.Option(help="one way to a mask alone; crop is the fast one on a small device")
    ] = None,
) -> None:
    """Shipped models and picture in; for each kind a bundle, overlay and result JSON, and one latency table out."""
    from edgekd.cli.console import log, out, picture_line
    from edgekd.deploy.demonstration import KINDS, demonstrate
    from edgekd.measure.report import kinds_table

    with log.status("building, running, measuring"):
        shown = demonstrate(output, log.print, (kind,) if kind else KINDS)
    for name, way in shown.ways.items():
        out.print(f"{name}: {picture_line(way.picture)}")
        for warning in way.latency.warnings:
            log.print(f"warning: {name}: {warning}")
    out.print(kinds_table({name: way.latency for name, way in shown.ways.items()}))
    for what, path in shown.files.items():
        out.print(f"{what:14} {path}")
    out.print(f"took           {shown.seconds:.1f} s")
