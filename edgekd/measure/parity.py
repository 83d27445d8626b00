"""How far one bundle is from another on pictures without labels: two chains in, a `ParityReport` out.

The reference's boxes prompt both segmenters, so that the masks are compared for the same objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from edgekd.data.labels import LabelledSet
from edgekd.errors import InputError
from edgekd.files import sha256_of
from edgekd.measure.accuracy import OVERLAP, count_matches, ious_of
from edgekd.model_set import Pipeline
from edgekd.runtime.chain import Chain
from edgekd.runtime.sources import pictures_in, read_picture
from edgekd.types import Detections, Float32Array, Masks

Track = Callable[[Sequence[Path]], Iterable[Path]]
MAX_PROMPTS = 16
"""Boxes a picture whose masks are compared: the most confident."""


class ParityReport(BaseModel):
    """The content of a parity JSON; everything is 0..1 but the two cosines, which are -1..1.

    Attributes:
        box_match: 2 * boxes found by both / boxes of both, at confidence 0.25, same class, IoU from 0.5.
        box_iou, confidence_difference: means over the matched boxes.
        mask_iou, mask_iou_p10: mean and 10th percentile over the masks of the reference's boxes.
        embedding_cosine: lowest cosine over the pictures between the two encoders' embeddings.
        embedding_sameness: largest cosine between two different pictures' embeddings in the candidate, less that in the
            reference; a broken encoder gives the same embedding for every picture, which shows as a large number.
    """

    model_config = ConfigDict(frozen=True)

    kind: str = "parity"
    reference_sha256: str = ""
    candidate_sha256: str = ""
    n_images: int
    n_boxes: int
    n_masks: int
    box_match: float | None = None
    box_iou: float | None = None
    confidence_difference: float | None = None
    mask_iou: float | None = None
    mask_iou_p10: float | None = None
    embedding_cosine: float | None = None
    embedding_sameness: float | None = None


@dataclass(frozen=True)
class ParityOptions:
    """What is compared: boxes, masks, image embeddings; `prompts` are known boxes: path -> (n, 4) xyxy."""

    detector: bool = True
    segmenter: bool = True
    embeddings: bool = True
    prompts: Mapping[Path, Float32Array] = field(default_factory=dict)


@dataclass
class _Compared:
    """What accumulates over the pictures."""

    n_boxes: int = 0
    n_matched: int = 0
    box_iou: list[float] = field(default_factory=list)
    confidence: list[float] = field(default_factory=list)
    mask_iou: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    embeddings: tuple[list[Float32Array], list[Float32Array]] = field(default_factory=lambda: ([], []))


def compare_bundles(reference: Path, candidate: Path, pictures: Sequence[Path], track: Track = iter) -> ParityReport:
    """Open two bundles and compare them; errors as for `Chain.open` and `compare_chains`."""
    with Chain.open(reference) as first, Chain.open(candidate) as second:
        report = compare_chains(first, second, pictures, track=track)
    hashes = {
        "reference_sha256": sha256_of(reference / "manifest.json"),
        "candidate_sha256": sha256_of(candidate / "manifest.json"),
    }
    return report.model_copy(update=hashes)


def compare_with(
    reference: Path, candidate: Path, pictures: LabelledSet | Path, limit: int | None = None, track: Track = iter
) -> ParityReport:
    """Compare two bundles on the pictures of labels, or on the first `limit` of a folder."""
    if isinstance(pictures, LabelledSet):
        return compare_bundles(reference, candidate, [picture.path for picture in pictures.pictures], track)
    return compare_bundles(reference, candidate, pictures_in(pictures)[:limit], track)


def compare_chains(
    reference: Chain,
    candidate: Chain,
    pictures: Sequence[Path],
    options: ParityOptions | None = None,
    track: Track = iter,
) -> ParityReport:
    """Run both chains on every picture.

    Raises:
        InputError: pictures are missing or cannot be read, or the bundles have different classes or sizes.
    """
    if not pictures:
        raise InputError("no picture was given to compare two bundles on; give a folder of `images`")
    _check_comparable(reference.manifest.pipeline, candidate.manifest.pipeline)
    options, compared = options or ParityOptions(), _Compared()
    for path in track(pictures):
        picture = read_picture(path)
        prompts = options.prompts.get(path)
        if options.detector:
            boxes = reference.detect(picture)
            _compare_boxes(boxes, candidate.detect(picture), compared)
            prompts = boxes.xyxy[:MAX_PROMPTS] if prompts is None else prompts
        if options.embeddings:
            _compare_embeddings(reference.embed(picture), candidate.embed(picture), compared)
        if options.segmenter:
            given = _centre_box(picture.shape[:2]) if prompts is None or not len(prompts) else prompts
            masks = [chain(picture, boxes=given).masks for chain in (reference, candidate)]
            compared.mask_iou += [_mask_iou(masks[0], masks[1], index) for index in range(len(given))]
    return _report(compared, len(pictures))


def _check_comparable(reference: Pipeline, candidate: Pipeline) -> None:
    if reference.class_names != candidate.class_names:
        n, m = len(reference.class_names), len(candidate.class_names)
        raise InputError(f"the two bundles have different classes ({n} and {m}); compare builds of the same models")
    if reference.encoder_input != candidate.encoder_input:
        raise InputError(
            "the two bundles have different encoder inputs; "
            "build both with: edgekd build-engine MODELS --segmenter-size 1024 --square"
        )


def _compare_boxes(first: Detections, second: Detections, compared: _Compared) -> None:
    compared.n_boxes += len(first) + len(second)
    compared.n_matched += count_matches(second, first)
    if not len(first) or not len(second):
        return
    ious = ious_of(first, second)
    best = ious.argmax(1)
    rows = np.flatnonzero(ious.max(1) >= OVERLAP)
    compared.box_iou += ious[rows, best[rows]].tolist()
    compared.confidence += np.abs(first.confidence[rows] - second.confidence[best[rows]]).tolist()


def _compare_embeddings(first: Float32Array, second: Float32Array, compared: _Compared) -> None:
    compared.cosine.append(_cosine(first.ravel(), second.ravel()))
    for kept, embedding in zip(compared.embeddings, (first, second), strict=True):
        kept.append(embedding[:, :, ::4, ::4].ravel())  # every fourth cell tells pictures apart, and is small


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    return float(a64 @ b64 / max(float(np.linalg.norm(a64) * np.linalg.norm(b64)), 1e-30))


def _sameness(embeddings: Sequence[Float32Array]) -> float | None:
    """The largest cosine between two pictures that were fed in one size; None when there are no two."""
    pairs = ((a, b) for i, a in enumerate(embeddings) for b in embeddings[:i] if a.shape == b.shape)
    return max((_cosine(a, b) for a, b in pairs), default=None)


def _centre_box(picture_px: tuple[int, int]) -> Float32Array:
    height, width = picture_px
    return np.array([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]], np.float32)


def _mask_iou(first: Masks, second: Masks, index: int) -> float:
    a, b = first.full(index), second.full(index)
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def _report(compared: _Compared, n_images: int) -> ParityReport:
    def mean(values: list[float]) -> float | None:
        return float(np.mean(values)) if values else None

    sameness = [_sameness(embeddings) for embeddings in compared.embeddings]
    return ParityReport(
        n_images=n_images,
        n_boxes=compared.n_boxes,
        n_masks=len(compared.mask_iou),
        box_match=2 * compared.n_matched / compared.n_boxes if compared.n_boxes else None,
        box_iou=mean(compared.box_iou),
        confidence_difference=mean(compared.confidence),
        mask_iou=mean(compared.mask_iou),
        mask_iou_p10=float(np.percentile(compared.mask_iou, 10)) if compared.mask_iou else None,
        embedding_cosine=min(compared.cosine, default=None),
        embedding_sameness=None if None in sameness else sameness[1] - sameness[0],  # type: ignore[operator]
    )


def parity_table(report: ParityReport) -> Table:
    """Return one row per comparison."""
    table = Table(title=f"against the reference: {report.n_images} pictures, {report.n_masks} masks")
    table.add_column("compared")
    table.add_column("value", justify="right")
    for name in type(report).model_fields:
        value = getattr(report, name)
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    return table
