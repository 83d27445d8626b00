"""`edgekd data`: published data sets become Ultralytics data sets, checked, with a report and a sheet of samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.cli.convert import convert

if TYPE_CHECKING:
    from edgekd.data.labels import LabelledSet
    from edgekd.data.write import DataReport

app = typer.Typer(help="Make a data set for training: COCO, NWPU VHR-10, DIOR or DOTA.", no_args_is_help=True)
app.command("convert")(convert)

Output = Annotated[Path, typer.Option("-o", "--output", help="new folder of the data set")]
Limit = Annotated[int | None, typer.Option(min=1, help="at most this many pictures per split")]


@app.command()
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

    _write(split_pictures(read_coco(source, pictures), val_fraction, seed), output, limit)


@app.command()
def nwpu(
    source: Annotated[Path, typer.Argument(help="folder with annotations.json and images/")],
    output: Output,
    limit: Limit = None,
) -> None:
    """Convert NWPU VHR-10 with the recorded split (416 pictures for training, 104 for validation)."""
    from edgekd.data.published import read_nwpu

    _write(read_nwpu(source), output, limit)


@app.command()
def dior(
    source: Annotated[Path, typer.Argument(help="folder with Annotations/ and JPEGImages-*/")],
    output: Output,
    limit: Limit = None,
) -> None:
    """Convert DIOR with horizontal boxes: trainval for training, test for validation."""
    from edgekd.data.published import read_dior

    _write(read_dior(source), output, limit)


@app.command()
def dota(
    source: Annotated[Path, typer.Argument(help="folder with train/ and val/, each with images/ and labelTxt/")],
    output: Output,
    tile_px: Annotated[int, typer.Option(min=64, help="side of a tile")] = 1024,
    overlap_px: Annotated[int, typer.Option(min=0, help="pixels that neighbouring tiles share")] = 200,
    limit: Limit = None,
) -> None:
    """Convert DOTA v1.0 with oriented boxes, tiled."""
    from edgekd.data.published import convert_dota

    _report(convert_dota(source, output, limit, tile_px, overlap_px), output)


def _write(splits: dict[str, LabelledSet], output: Path, limit: int | None) -> None:
    from edgekd.data.write import write_dataset

    _report(write_dataset({split: labels.spread(limit) for split, labels in splits.items()}, output), output)


def _report(report: DataReport, output: Path) -> None:
    from edgekd.cli.console import log, out

    for split in report.splits:
        counts = ", ".join(f"{name} {count}" for name, count in split.n_objects.items())
        out.print(f"{split.name}: {split.n_pictures} pictures ({split.n_background} empty), {counts}")
    log.print(f"boxes cut at an edge: {report.n_cut}; dropped, under a pixel: {report.n_dropped}")
    out.print(f"{output / 'data.yaml'}; look at {output / 'samples.jpg'}")
