"""How much accuracy a candidate lost against a float reference: two chains and pictures in, metric -> number out.

Drops are in points (hundredths) of a metric that needs labels; the others are compared with the reference's own output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgekd.data.labels import LabelledSet
from edgekd.errors import InputError
from edgekd.graphs import StageName
from edgekd.measure.accuracy import EvaluateOptions, evaluate_chain
from edgekd.measure.parity import MAX_PROMPTS, ParityOptions, compare_chains
from edgekd.runtime.chain import Chain

Metric = Literal["box_ap", "mask_ap", "miou", "box_match", "mask_iou", "embedding_cosine"]
DROPS: dict[Metric, tuple[str, str]] = {
    "box_ap": ("box", "ap"),
    "mask_ap": ("mask", "ap"),
    "miou": ("gt_box_mask", "miou"),
}
"""Metrics whose limit is the largest loss in points, and where an evaluation keeps them."""

FLOORS: tuple[Metric, ...] = ("box_match", "mask_iou", "embedding_cosine")
"""Metrics whose limit is the smallest value, 0..1."""

STAGES_OF: dict[Metric, tuple[StageName, ...]] = {
    "box_ap": ("detector",),
    "box_match": ("detector",),
    "mask_ap": ("detector", "encoder", "segmenter"),
    "miou": ("encoder", "segmenter"),
    "mask_iou": ("encoder", "segmenter"),
    "embedding_cosine": ("encoder",),
}
"""Which networks can spoil a metric."""


@dataclass(frozen=True)
class Sample:
    """What is measured on: pictures, and their labels where there are some."""

    pictures: tuple[Path, ...]
    labels: LabelledSet | None = None

    @staticmethod
    def of_labels(labels: LabelledSet) -> Sample:
        """Take the pictures of a labelled set."""
        return Sample(tuple(picture.path for picture in labels.pictures), labels)


class QualityCheck:
    """Measures candidates against one reference, which is evaluated once."""

    def __init__(self, reference: Chain, sample: Sample, metrics: Collection[Metric]) -> None:
        """Evaluate the reference.

        Raises:
            InputError: a metric needs labels, or masks, and there are none.
            DataError: see `evaluate_chain`.
        """
        self._reference, self._sample = reference, sample
        self._drops = [metric for metric in DROPS if metric in metrics]
        self._floors = [metric for metric in FLOORS if metric in metrics]
        if self._drops and sample.labels is None:
            raise InputError(f"{self._drops[0]} needs labels; give labelled `data`, or use mask_iou or box_match")
        masks = [metric for metric in self._drops if metric != "box_ap"]
        if masks and sample.labels is not None and not sample.labels.has_masks:
            raise InputError(f"{masks[0]} needs labels with masks, and {sample.labels.source} has boxes only")
        self.expected = self._evaluate(reference)
        """The reference's own value of every metric that needs labels, 0..1."""

    def measure(self, candidate: Chain) -> dict[str, float]:
        """Return the metrics of a candidate: drops in points, the others 0..1.

        A floor without anything to compare (no box found by either) counts as 1.
        """
        found = self._evaluate(candidate)
        measured: dict[str, float] = {m: 100 * (self.expected[m] - found[m]) for m in self._drops}
        if self._floors:
            report = compare_chains(self._reference, candidate, self._sample.pictures, self._parity_options())
            values = ((metric, getattr(report, metric)) for metric in self._floors)
            measured.update({metric: 1.0 if value is None else float(value) for metric, value in values})
        return measured

    def _evaluate(self, chain: Chain) -> dict[Metric, float]:
        if not self._drops or self._sample.labels is None:
            return {}
        options = EvaluateOptions(
            detector=bool({"box_ap", "mask_ap"} & set(self._drops)),
            segmenter=bool({"mask_ap", "miou"} & set(self._drops)),
        )
        metrics, _ = evaluate_chain(chain, self._sample.labels, options)
        return {metric: metrics[DROPS[metric][0]].get(DROPS[metric][1], 0.0) for metric in self._drops}

    def _parity_options(self) -> ParityOptions:
        labels = self._sample.labels
        prompts = {p.path: p.xyxy[:MAX_PROMPTS] for p in labels.pictures} if labels else {}
        boxes, masks, embeddings = (metric in self._floors for metric in FLOORS)
        return ParityOptions(boxes or (masks and not prompts), masks, embeddings, prompts)


def stages_measured(metrics: Iterable[Metric]) -> Sequence[StageName]:
    """Return the networks that the metrics depend on, in the order in which they run."""
    wanted = {stage for metric in metrics for stage in STAGES_OF[metric]}
    return [stage for stage in ("detector", "encoder", "segmenter") if stage in wanted]
