"""`edgekd inspect`: what a bundle holds and where it comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the manifest as JSON")] = None,
    public_key: Annotated[str | None, typer.Option("--require-signature", help="public key of who signed it")] = None,
) -> None:
    """Show what a bundle holds and where it comes from, without loading an engine."""
    from rich.table import Column, Table

    from edgekd.bundle import read_manifest
    from edgekd.cli.console import out, write_json

    manifest = read_manifest(bundle, public_key)
    target = manifest.target
    gpu = f", compute capability {target.compute_capability}" if target.compute_capability else ""
    out.print(f"{bundle}: {manifest.backend} {manifest.backend_version} for {target.os} {target.machine}{gpu}")
    out.print(f"made by edgekd {manifest.edgekd_version} on {manifest.created}")
    table = Table("stage", "precision", "MB", Column("inputs", overflow="fold"), "weights", "licence")
    for name, stage in manifest.stages.items():
        size = f"{sum(file.n_bytes for file in stage.files) / 1e6:.1f}"
        inputs = ", ".join(f"{spec.name} {'x'.join(str(n) for n in spec.shape)}" for spec in stage.inputs)
        trained = "" if stage.source.trained else " (untrained)"
        table.add_row(name, stage.precision, size, inputs, stage.source.name + trained, stage.source.licence)
    out.print(table)
    out.print(f"kind {manifest.kind}, format {manifest.format_version}, {manifest.pipeline.head.describe()}")
    out.print(f"{len(manifest.pipeline.class_names)} classes: {', '.join(manifest.pipeline.class_names)}")
    for note in manifest.notes:
        out.print(f"  {note}")
    if gate := manifest.gate:
        limits = {name: f" (limit {limit:g})" for name, limit in gate.limits.items()}
        measured = ", ".join(f"{name} {value:.4f}{limits.get(name, '')}" for name, value in gate.measured.items())
        out.print(f"accuracy gate {'passed' if gate.passed else 'failed'} on {gate.n_images} pictures: {measured}")
        if gate.float_layers:
            out.print(f"  kept in float: {', '.join(gate.float_layers)}")
    write_json(json_file, manifest)
