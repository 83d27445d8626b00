"""Boxes to a data set of masks as a user orders it: paths and numbers in, the folder and its report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekd.data.label import MaskedSet, Thresholds, Track, label_pictures, mask_boxes
from edgekd.data.masked_set import write_masked
from edgekd.data.read import read_labels
from edgekd.errors import InputError
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.sources import expand


@dataclass(frozen=True, kw_only=True)
class LabelJob:
    """What `edgekd label` was asked for.

    Attributes:
        bundle: the chain that masks.
        output: the new folder.
        sources: pictures and folders; with `boxes` at most one, the folder of their pictures.
        boxes: labels with boxes, of any format; None detects them.
        part: which part of an Ultralytics data file.
        limit: take only the first so many pictures.
        thresholds: which masks are taken, shown and left out.
        confidence: lowest confidence of a detected box.
        val_fraction, seed: of the split.
        n_threads: of the CPU; None leaves it to the backend.
    """

    bundle: Path
    output: Path
    sources: Sequence[Path] = ()
    boxes: Path | None = None
    part: str = "train"
    limit: int | None = None
    thresholds: Thresholds = field(default_factory=Thresholds)
    confidence: float = 0.25
    val_fraction: float = 0.2
    seed: int = 0
    n_threads: int | None = None


def label_to_folder(job: LabelJob, track: Track = iter) -> dict[str, Any]:
    """Mask, decide, write; return the report, which is also in the folder.

    Raises:
        InputError: there are no pictures, or several sources came with boxes.
        EdgekdError: as for `read_labels`, `Chain.open` and `write_masked`.
    """
    if job.boxes is not None and len(job.sources) > 1:
        raise InputError(
            f"{len(job.sources)} sources came with `boxes`, expected at most one: the folder of their pictures"
        )
    if job.boxes is None and not job.sources:
        raise InputError("no picture was given, expected pictures or folders, or labels as `boxes`")
    with Chain.open(job.bundle, job.n_threads) as chain:
        masked = _masked(chain, job, track)
    return write_masked(masked, job.thresholds, job.output, job.val_fraction, job.seed)


def _masked(chain: Chain, job: LabelJob, track: Track) -> MaskedSet:
    if job.boxes is not None:
        given = read_labels(job.boxes, next(iter(job.sources), None), job.part, job.limit)
        return mask_boxes(chain, given, job.thresholds, track)
    options = ChainOptions(detect=DetectOptions(confidence=job.confidence))
    return label_pictures(chain, expand(list(job.sources))[: job.limit], options, job.thresholds, track)
