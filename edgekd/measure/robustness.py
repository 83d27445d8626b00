"""How much accuracy a bundle keeps under conditions, and among many objects: a chain and labels in, a report out.

Dense pictures are those with at least `DENSE_OBJECTS` labelled objects; AP_d is average precision on these alone, as
they are. Every other row is the whole set under one condition of `edgekd.measure.conditions`, with what is kept of the
clean value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

import edgekd
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.environment import Machine, describe_machine
from edgekd.errors import BackendUnavailable
from edgekd.files import sha256_of
from edgekd.measure.accuracy import EvaluateOptions, evaluate_chain
from edgekd.measure.conditions import CONDITIONS, Changed, Condition
from edgekd.runtime.chain import Chain
from edgekd.types import UInt8Array

DENSE_OBJECTS = 10
SHOWN = {"ap": "box AP", "ap_small": "box AP small", "mask_ap": "mask AP", "miou": "mIoU from labels' boxes"}
Track = Callable[[Sequence[Condition]], Iterable[Condition]]


class Row(BaseModel):
    """One condition: `values` by the names of `SHOWN`, 0..1; `kept`: the same over the clean ones."""

    model_config = ConfigDict(frozen=True)

    group: str
    name: str
    n_images: int
    values: dict[str, float]
    kept: dict[str, float] = {}


class RobustnessReport(BaseModel):
    """The content of a robustness report's JSON; the first row is the clean set."""

    model_config = ConfigDict(frozen=True)

    kind: str = "robustness"
    edgekd_version: str
    machine: Machine
    bundle_sha256: str
    precision: dict[str, str]
    data: str
    dense_from: int = DENSE_OBJECTS
    rows: tuple[Row, ...]


def measure_robustness(
    folder: Path,
    labels: LabelledSet,
    options: EvaluateOptions | None = None,
    track: Track = iter,
    n_threads: int | None = None,
) -> RobustnessReport:
    """Measure a bundle on the clean set, on its dense pictures, and under every condition.

    Arguments and errors as for `edgekd.measure.accuracy.evaluate_bundle`.
    """
    options = options or EvaluateOptions()
    with Chain.open(folder, n_threads) as chain:
        clean = _row(chain, labels, options, Condition("clean", "", _as_it_is))
        rows = [clean]
        dense = replace(labels, pictures=tuple(p for p in labels.pictures if len(p) >= DENSE_OBJECTS))
        if dense.pictures:
            name = f"{DENSE_OBJECTS} objects and more"
            rows.append(_row(chain, dense, options, Condition("dense", name, _as_it_is)))
        rows += [_row(chain, labels, options, condition) for condition in track(CONDITIONS)]
        manifest = chain.manifest
    return RobustnessReport(
        edgekd_version=edgekd.__version__,
        machine=describe_machine(),
        bundle_sha256=sha256_of(folder / "manifest.json"),
        precision={name: stage.precision for name, stage in manifest.stages.items()},
        data=f"{labels.source.parent.name}/{labels.source.name}",
        rows=(clean, *(row.model_copy(update={"kept": kept_of(row, clean)}) for row in rows[1:])),
    )


def _as_it_is(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
    return pixels, picture


def _row(chain: Chain, labels: LabelledSet, options: EvaluateOptions, condition: Condition) -> Row:
    metrics, _ = evaluate_chain(chain, labels, options, change=condition.apply)
    found = {"mask_ap": metrics["mask"].get("ap"), "miou": metrics["gt_box_mask"].get("miou")}
    found |= {name: metrics["box"].get(name) for name in ("ap", "ap_small")}
    values = {name: found[name] for name in SHOWN}
    return Row(
        group=condition.group,
        name=condition.name,
        n_images=len(labels.pictures),
        values={name: value for name, value in values.items() if value is not None},
    )


def kept_of(row: Row, clean: Row) -> dict[str, float]:
    """What is kept of every clean value above 0."""
    return {name: value / clean.values[name] for name, value in row.values.items() if clean.values.get(name, 0.0) > 0}


def robustness_table(report: RobustnessReport) -> Table:
    """One row a condition: percent, and in brackets percent of clean."""
    names = [name for name in SHOWN if name in report.rows[0].values]
    table = Table("condition", "", *(SHOWN[name] for name in names), title=f"{report.data}: kept of the clean value")
    for row in report.rows:
        cells = [
            f"{100 * row.values[name]:.1f}" + (f" ({100 * row.kept[name]:.0f} %)" if name in row.kept else "")
            if name in row.values
            else ""
            for name in names
        ]
        table.add_row(row.group, row.name, *cells)
    return table


def plot_robustness(reports: Mapping[str, RobustnessReport], path: Path) -> None:
    """Draw what is kept of the clean values as bars into a PNG or SVG file: a panel per measure, a colour per bundle.

    Args:
        reports: by the names of the bundles in the legend.
        path: file to write.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise BackendUnavailable(f"matplotlib is missing ({error}); install it: pip install matplotlib") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    measures = [name for name in SHOWN if any(name in report.rows[0].values for report in reports.values())]
    conditions = list(dict.fromkeys((row.group, row.name) for report in reports.values() for row in report.rows[1:]))
    size = (3.2 * len(measures) + 1.5, 0.32 * len(conditions) + 1.2)
    figure, panels = pyplot.subplots(1, len(measures), sharey=True, figsize=size, layout="constrained", squeeze=False)
    height = 0.8 / len(reports)
    for axes, measure in zip(panels[0], measures, strict=True):
        for index, (name, report) in enumerate(reports.items()):
            kept = {(row.group, row.name): 100 * row.kept[measure] for row in report.rows if measure in row.kept}
            places = [conditions.index(condition) + (index + 0.5) * height - 0.4 for condition in kept]
            axes.barh(places, list(kept.values()), height, label=name)
        axes.axvline(100, color="black", linewidth=0.8)
        axes.set_xlabel(f"{SHOWN[measure]}, % of clean")
    panels[0][0].set_yticks(range(len(conditions)), [" ".join(condition).strip() for condition in conditions])
    panels[0][0].invert_yaxis()
    panels[0][-1].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
