"""`edgekd data`: published data sets become Ultralytics data sets, checked, with a report and a sheet of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli.convert import Limit, Output, coco, convert, print_report, write_splits

app = typer.Typer(help="Make a data set for training: COCO, NWPU VHR-10, DIOR or DOTA.", no_args_is_help=True)
app.command("convert")(convert)
app.command("coco")(coco)


@app.command()
def nwpu(
    source: Annotated[Path, typer.Argument(help="folder with annotations.json and images/")],
    output: Output,
    limit: Limit = None,
    turned: Annotated[bool, typer.Option("--turned", help="smallest turned box of every polygon, YOLO-obb")] = False,
) -> None:
    """Convert NWPU VHR-10 with the recorded split (416 pictures for training, 104 for validation)."""
    from edgekd.data.published import read_nwpu

    write_splits(read_nwpu(source), output, limit, turned)


@app.command()
def dior(
    source: Annotated[Path, typer.Argument(help="folder with Annotations/ and JPEGImages-*/")],
    output: Output,
    limit: Limit = None,
) -> None:
    """Convert DIOR with horizontal boxes: trainval for training, test for validation."""
    from edgekd.data.published import read_dior

    write_splits(read_dior(source), output, limit)


@app.command()
def merge(
    run: Annotated[Path, typer.Argument(help="folder of edgekd run over tiles, with an oriented bundle")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder for Task1_CLASS.txt")],
    iou: Annotated[float, typer.Option(help="ProbIoU above which boxes of two tiles are one object")] = 0.3,
) -> None:
    """Merge what a run found in DOTA's tiles into a submission of whole pictures."""
    from edgekd.cli.console import out
    from edgekd.runtime.results.dota import merge_run

    n_pictures, n_boxes = merge_run(run, output, iou)
    out.print(f"{output}: {n_pictures} pictures, {n_boxes} boxes")


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

    print_report(convert_dota(source, output, limit, tile_px, overlap_px), output)
