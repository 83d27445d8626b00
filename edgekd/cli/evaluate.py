"""`edgekd evaluate`: a bundle's accuracy on labelled pictures, and its distance from another bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.choices import Part


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    data: Annotated[Path | None, typer.Option(help="labels: COCO .json or Ultralytics .yaml")] = None,
    images: Annotated[Path | None, typer.Option(help="pictures of --data, or those to compare on")] = None,
    against: Annotated[Path | None, typer.Option(help="reference bundle; needs no labels")] = None,
    split: Annotated[str, typer.Option(help="part of a .yaml")] = "val",
    limit: Annotated[int | None, typer.Option(help="use the first so many pictures", min=1)] = None,
    only: Annotated[Part | None, typer.Option(help="measure one network alone")] = None,
    mask_confidence: Annotated[float, typer.Option(help="lowest confidence of a box that mask AP counts")] = 0.05,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report")] = None,
    robustness: Annotated[
        bool, typer.Option("--robustness", help="also turned, scaled, covered, blurred, noisy, compressed, and dense")
    ] = False,
    tile: Annotated[str, typer.Option(help="look at every picture in tiles: off, auto, or a side in px")] = "off",
    object_px: Annotated[int | None, typer.Option(help="side of the largest object; default: a quarter tile")] = None,
    grid: Annotated[Path | None, typer.Option(help="write the worst pictures side by side (.jpg, .png)")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: the backend's choice", min=1)] = None,
) -> None:
    """Measure box AP, mask AP and mean IoU on labels, or parity with another bundle without labels, or both."""
    from edgekd.cli.console import out, tracked, write_text
    from edgekd.cli.values import parse_tiles
    from edgekd.measure.accuracy import EvaluateOptions
    from edgekd.measure.evaluation import EvaluationJob, measure_bundle, reports_text, table_of

    job = EvaluationJob(
        bundle=bundle,
        data=data,
        images=images,
        against=against,
        split=split,
        limit=limit,
        options=EvaluateOptions(
            detector=only != "segmenter",
            segmenter=only != "detector",
            mask_confidence=mask_confidence,
            tiles=parse_tiles(tile, object_px),
        ),
        robustness=robustness,
        grid=grid,
        n_threads=threads,
    )
    reports = []
    for report in measure_bundle(job, tracked):
        reports.append(report)
        out.print(table_of(report), highlight=False)
    if json_file:
        write_text(json_file, reports_text(reports))
