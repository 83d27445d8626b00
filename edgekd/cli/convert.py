"""`edgekd data convert`: labels of any format become those of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Target = Literal["coco", "yolo", "yolo-seg", "yolo-obb", "labelme", "label-studio", "csv"]


def convert(
    source: Annotated[Path, typer.Argument(help="labels: COCO .json, data .yaml, or a folder (YOLO, VOC, DOTA)")],
    output: Annotated[Path, typer.Option("-o", "--output", help="new folder")],
    to: Annotated[Target, typer.Option(help="form to write")],
    pictures: Annotated[Path | None, typer.Option(help="folder of the pictures, where the labels do not say")] = None,
    part: Annotated[str, typer.Option(help="part of a .yaml")] = "train",
    val_fraction: Annotated[float, typer.Option(min=0.01, max=0.9, help="of the YOLO forms: for validation")] = 0.2,
    seed: Annotated[int, typer.Option(help="of the split")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="at most this many pictures")] = None,
) -> None:
    """Convert labels of any format, with their pictures, to that of another tool."""
    from edgekd.cli.console import out
    from edgekd.data.convert import convert_labels
    from edgekd.data.read import read_labels

    labels = read_labels(source, pictures, part).spread(limit)
    out.print(f"{convert_labels(labels, to, output, val_fraction, seed)}: {len(labels)} pictures")
