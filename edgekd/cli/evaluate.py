"""`edgekd evaluate`: a bundle's accuracy on labelled pictures, and its distance from another bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekd.choices import Part
from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.measure.accuracy import AccuracyReport
    from edgekd.measure.difference import DifferenceReport
    from edgekd.measure.parity import ParityReport
    from edgekd.measure.robustness import RobustnessReport


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
    from edgekd.data.read import read_labels
    from edgekd.measure.accuracy import EvaluateOptions, accuracy_table
    from edgekd.measure.accuracy import evaluate as measure
    from edgekd.measure.difference import difference_between, difference_lines
    from edgekd.measure.parity import compare_with, parity_table
    from edgekd.measure.robustness import measure_robustness, robustness_table

    if data is None and (against is None or images is None):
        raise InputError("nothing to measure on: give --data LABELS, or --against BUNDLE with --images DIR")
    if grid is not None and data is None:
        raise InputError("--grid shows the worst pictures by their labels and no labels were given; add --data LABELS")
    if robustness and data is None:
        raise InputError("--robustness is measured on labels and none were given; add --data LABELS")
    options = EvaluateOptions(
        detector=only != "segmenter",
        segmenter=only != "detector",
        mask_confidence=mask_confidence,
        tiles=parse_tiles(tile, object_px),
    )
    reports: list[AccuracyReport | DifferenceReport | ParityReport | RobustnessReport] = []
    labels = read_labels(data, images, split, limit) if data else None
    if labels:
        accuracy = measure(bundle, labels, options, tracked("evaluating"), threads)
        reports.append(accuracy)
        out.print(accuracy_table(accuracy))
    if robustness and labels:
        conditions = measure_robustness(bundle, labels, options, tracked("under conditions"), threads)
        reports.append(conditions)
        out.print(robustness_table(conditions))
    if against and labels:
        reference = measure(against, labels, options, tracked("evaluating"), threads)
        difference = difference_between(accuracy, reference)
        reports.append(difference)
        out.print("\n".join(difference_lines(difference)), highlight=False)
    if against:
        parity = compare_with(against, bundle, labels or images or Path(), limit, tracked("comparing"))
        reports.append(parity)
        out.print(parity_table(parity))
    if grid and labels:
        from edgekd.measure.worst_cases import write_worst_cases

        write_worst_cases(grid, bundle, labels, accuracy)
    if json_file:
        text = ",\n".join(report.model_dump_json(indent=1) for report in reports)
        write_text(json_file, (text if len(reports) == 1 else f"[{text}]") + "\n")
