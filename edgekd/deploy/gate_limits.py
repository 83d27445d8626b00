"""The limits of an accuracy gate, as a user writes them, and the labelled pictures that they hold on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.data.read import read_labels
from edgekd.errors import InputError
from edgekd.measure.quality import DROPS, FLOORS, Metric, Sample


@dataclass(frozen=True)
class Gate:
    """Limits: the largest drop in points of `box_ap`, `mask_ap`, `miou`; the smallest value of the other metrics."""

    limits: Mapping[Metric, float]

    def failing(self, measured: Mapping[str, float]) -> list[Metric]:
        """Return the metrics that break their limit."""
        return [m for m, limit in self.limits.items() if (measured[m] > limit if m in DROPS else measured[m] < limit)]


@dataclass(frozen=True)
class GateOptions:
    """What the gate is measured on, and whether blocks may be returned to float."""

    gate: Gate
    sample: Sample
    fallback: bool = True


def parse_gate(text: str) -> Gate:
    """Read limits such as `box_ap=0.5,mask_iou=0.98`.

    Raises:
        InputError: a part is no `metric=number`, or the number cannot be a limit of that metric.
    """
    limits: dict[Metric, float] = {}
    known: tuple[Metric, ...] = (*DROPS, *FLOORS)
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        metric = next((metric for metric in known if metric == name), None)
        try:
            limit = float(number)
        except ValueError:
            limit = float("nan")
        if metric is None or not 0 <= limit <= (100 if metric in DROPS else 1):
            raise InputError(
                f"gate is {part.strip()!r}, expected metric=limit: a drop in points for {', '.join(DROPS)}, "
                f"a floor from 0 to 1 for {', '.join(FLOORS)}, such as box_ap=0.5,mask_iou=0.98"
            )
        limits[metric] = limit
    return Gate(limits)


def gate_on(text: str, data: Path | None, images: Path | None, fallback: bool) -> GateOptions | None:
    """Read limits and the labelled pictures that they hold on; an empty text asks for no gate.

    Raises:
        InputError: see `parse_gate`; or there is a gate and no `data`.
        DataError: see `read_labels`.
    """
    if not text:
        return None
    limits = parse_gate(text)
    if data is None:
        raise InputError("data is missing and a gate was given, expected labelled pictures to measure it on")
    return GateOptions(gate=limits, sample=Sample.of_labels(read_labels(data, images)), fallback=fallback)
