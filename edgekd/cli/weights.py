"""`edgekd weights list|fetch|verify|export|vision`: checkpoints by name, and the vision path of a tuned SAM3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Checkpoints by name: list, fetch, verify, export.", no_args_is_help=True)


@app.command("list")
def list_weights() -> None:
    """List names, licences, and whether each file is on this machine."""
    from rich.table import Table

    from edgekd.cli.console import out
    from edgekd.models import weights

    table = Table("name", "kind", "licence", "sha256", "file")
    table.add_row(weights.SHIPPED_DETECTOR, "detector", "AGPL-3.0 (Ultralytics)", "in models.json", "in the package")
    table.add_row(weights.SHIPPED_SEGMENTER, "segmenter", "see the model card", "in models.json", "in the package")
    table.add_row(weights.SHIPPED_CROP, "segmenter", "Apache-2.0", "in segmenter.json", "in the package")
    for entry in weights.PUBLISHED:
        here = str(entry.file) if entry.file.is_file() else "not fetched"
        table.add_row(entry.name, entry.kind, entry.licence, (entry.sha256 or "unknown")[:12], here)
    out.print(table)


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="a name of `edgekd weights list`")]) -> None:
    """Download a checkpoint into the cache and check its sha256 where it is known."""
    from rich.progress import Progress

    from edgekd.cli.console import log, out
    from edgekd.models import weights

    entry = weights.named(name)
    log.print(f"{entry.name}: {entry.licence}, from {entry.url}")
    with Progress(console=log) as progress:
        task = progress.add_task(entry.name, total=None)
        path = weights.fetch(entry, lambda done, total: progress.update(task, completed=done, total=total or None))
    out.print(str(path))


@app.command()
def verify(name: Annotated[str, typer.Argument(help="a name of `edgekd weights list`")]) -> None:
    """Compare a fetched file with the published sha256."""
    from edgekd.cli.console import out
    from edgekd.models import weights

    entry = weights.named(name)
    known = weights.verify(entry)
    out.print(f"{entry.file}: {'sha256 as published' if known else 'no published sha256 is known to compare with'}")


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="yolo11n-nwpu or tinysam-nwpu, the shipped models")],
    output: Annotated[Path, typer.Option("-o", "--output", help="checkpoint to write: .pt, or .pth for TinySAM")],
) -> None:
    """Turn a shipped model back into a checkpoint that can be trained, exported and combined with others."""
    from edgekd.cli.console import out
    from edgekd.models import weights

    weights.export_shipped(name, output)
    out.print(f"{output}: {name} as a checkpoint, computing what the shipped graph computes")


@app.command()
def vision(
    weights: Annotated[Path, typer.Option(help="folder of facebook/sam3 that the fine-tuning began with")],
    tuned: Annotated[Path, typer.Option(help="best.pt of edgekd finetune --model sam3")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for vision.onnx and vision.json")],
) -> None:
    """Export the vision path of a fine-tuned SAM3: pixels to three feature levels, adapters folded, for own heads."""
    from edgekd.cli.console import log, out
    from edgekd.environment import need_modules

    need_modules("the export of SAM3", ("torch", "transformers", "timm", "onnx", "onnxruntime"), "build,sam3")
    from edgekd.deploy.export_sam3 import export_vision_path
    from edgekd.models.sam3 import load_tuned_sam3

    with log.status("exporting"):
        found = export_vision_path(load_tuned_sam3(weights, tuned), output, {"tuned": tuned})
    distance = found["largest_relative_difference_from_pytorch"]
    out.print(f"{output / found['graph']}: {distance:.1e} of the largest value from PyTorch")
