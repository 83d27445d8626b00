"""`edgekd data convert` and `data coco`: labels of any format in another form, and what both say of a written set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.choices import LabelForm

if TYPE_CHECKING:
    from edgekd.data.labels import LabelledSet
    from edgekd.data.write import DataReport

Output = Annotated[Path, typer.Option("-o", "--output", help="new folder of the data set")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most this many pictures per split")]


def convert(
    source: Annotated[Path, typer.Argument(help="labels: COCO .json, data .yaml, or a folder (YOLO, VOC, DOTA)")],
    output: Output,
    to: Annotated[LabelForm, typer.Option(help="form to write")],
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


def coco(
    source: Annotated[Path, typer.Argument(help="COCO annotation file (.json)")],
    output: Output,
    pictures: Annotated[Path | None, typer.Option(help="folder of the pictures; by default images/ beside it")] = None,
    val_fraction: Annotated[float, typer.Option(min=0.01, max=0.9, help="share of pictures for validation")] = 0.2,
    seed: Annotated[int, typer.Option(help="of the split")] = 0,
    limit: Limit = None,
) -> None:
    """Convert a COCO file, split by picture."""
    from edgekd.data.coco import read_coco
    from edgekd.data.published import split_pictures

    write_splits(split_pictures(read_coco(source, pictures), val_fraction, seed), output, limit)


def write_splits(splits: dict[str, LabelledSet], output: Path, limit: int | None, turned: bool = False) -> None:
    """Write an Ultralytics data set of upright or turned boxes, and say what it holds."""
    from edgekd.data.write import write_dataset

    parts = {split: labels.spread(limit) for split, labels in splits.items()}
    print_report(write_dataset(parts, output, "turned" if turned else "box"), output)


def print_report(report: DataReport, output: Path) -> None:
    """Say what a data set holds."""
    from edgekd.cli.console import log, out

    for split in report.splits:
        counts = ", ".join(f"{name} {count}" for name, count in split.n_objects.items())
        out.print(f"{split.name}: {split.n_pictures} pictures ({split.n_background} empty), {counts}")
    log.print(f"boxes cut at an edge: {report.n_cut}; dropped, under a pixel: {report.n_dropped}")
    out.print(f"{output / 'data.yaml'}; look at {output / 'samples.jpg'}")
