"""`edgekd evaluate`: a bundle's accuracy on labelled pictures, and its distance from another bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.data.labels import LabelledSet
    from edgekd.measure.accuracy import AccuracyReport
    from edgekd.measure.parity import ParityReport
    from edgekd.measure.robustness import RobustnessReport

Part = Literal["detector", "segmenter"]


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
    from edgekd.cli.console import out, write_text
    from edgekd.cli.values import parse_tiles
    from edgekd.data.read import read_labels
    from edgekd.measure.accuracy import EvaluateOptions, accuracy_table
    from edgekd.measure.parity import parity_table

    if data is None and (against is None or images is None):
        raise InputError("nothing to measure on: give --data LABELS, or --against BUNDLE with --images DIR")
    if grid is not None and data is None:
        raise InputError("--grid shows the worst pictures by their labels and no labels were given; add --data LABELS")
    if robustness and data is None:
        raise InputError("--robustness is measured on labels and none were given; add --data LABELS")
    options = EvaluateOptions(
        only != "segmenter", only != "detector", mask_confidence=mask_confidence, tiles=parse_tiles(tile, object_px)
    )
    reports: list[AccuracyReport | ParityReport | RobustnessReport] = []
    labels = read_labels(data, images, split, limit) if data else None
    if labels:
        accuracy = _measure(bundle, labels, options, threads)
        reports.append(accuracy)
        out.print(accuracy_table(accuracy))
    if robustness and labels:
        reports.append(_measure_robustness(bundle, labels, options, threads))
    if against and labels:
        _print_difference(accuracy, _measure(against, labels, options, threads))
    if against:
        parity = _compare(against, bundle, labels, images, limit)
        reports.append(parity)
        out.print(parity_table(parity))
    if grid and labels:
        _write_grid(grid, bundle, labels, accuracy)
    if json_file:
        text = ",\n".join(report.model_dump_json(indent=1) for report in reports)
        write_text(json_file, (text if len(reports) == 1 else f"[{text}]") + "\n")


def _measure_robustness(bundle: Path, labels: LabelledSet, options: Any, threads: int | None) -> RobustnessReport:
    from rich.progress import track

    from edgekd.cli.console import log, out
    from edgekd.measure.robustness import measure_robustness, robustness_table

    report = measure_robustness(
        bundle, labels, options, lambda items: track(items, "under conditions", console=log), threads
    )
    out.print(robustness_table(report))
    return report


def _print_difference(accuracy: AccuracyReport, reference: AccuracyReport) -> None:
    from edgekd.cli.console import out
    from edgekd.measure.robustness import paired_difference

    for measure, (mean, low, high) in paired_difference(accuracy.pictures, reference.pictures).items():
        interval = f"[{100 * low:+.2f}, {100 * high:+.2f}]"
        out.print(f"{measure} per picture, points over the reference: {100 * mean:+.2f} {interval}", markup=False)


def _measure(bundle: Path, labels: LabelledSet, options: Any, threads: int | None) -> AccuracyReport:
    from rich.progress import track

    from edgekd.cli.console import log
    from edgekd.measure.accuracy import evaluate as measure

    return measure(bundle, labels, options, lambda items: track(items, "evaluating", console=log), threads)


def _compare(
    reference: Path, bundle: Path, labels: LabelledSet | None, images: Path | None, limit: int | None
) -> ParityReport:
    from rich.progress import track

    from edgekd.cli.console import log
    from edgekd.measure.parity import compare_bundles
    from edgekd.runtime.sources import pictures_in

    paths = [picture.path for picture in labels.pictures] if labels else pictures_in(images or Path())[:limit]
    return compare_bundles(reference, bundle, paths, lambda items: track(items, "comparing", console=log))


def _write_grid(path: Path, bundle: Path, labels: LabelledSet, report: AccuracyReport) -> None:
    import cv2

    from edgekd.cli.console import write_file
    from edgekd.measure.accuracy import worst_pictures
    from edgekd.measure.worst_cases import N_SHOWN, worst_case_grid
    from edgekd.runtime.chain import Chain

    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InputError(f"{path} is neither .jpg nor .png; give another --grid")
    with Chain.open(bundle) as chain:
        picture = worst_case_grid(chain, labels, worst_pictures(report.pictures, N_SHOWN))
    write_file(path, cv2.imencode(path.suffix, picture)[1].tobytes())
