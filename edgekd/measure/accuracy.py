"""How accurate a bundle is: a chain and labelled pictures in, an `AccuracyReport` out.

Every picture runs once: the detector with a confidence low enough for average precision, then the segmenter on the
detector's boxes (mask AP, score = the detector's confidence) and on the labels' boxes (IoU of the segmenter alone).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from rich.table import Table

import edgekd
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.read import read_pixels
from edgekd.environment import Machine, describe_machine
from edgekd.errors import DataError
from edgekd.files import sha256_of
from edgekd.measure import coco_metrics as coco
from edgekd.measure.coco_metrics import Json
from edgekd.measure.turned_ap import evaluated_turned, label_corners, with_corners
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.oriented import turned_ious
from edgekd.runtime.tiled_chain import TiledChain
from edgekd.runtime.tiles import TileOptions
from edgekd.text import shown
from edgekd.types import Detections, Int32Array, UInt8Array

Track = Callable[[Sequence[LabelledPicture]], Iterable[LabelledPicture]]
"""Wraps the pictures to show progress, as `rich.progress.track` does; `iter` shows nothing."""

Change = Callable[[UInt8Array, LabelledPicture], tuple[UInt8Array, LabelledPicture]]

OVERLAP = 0.5
"""IoU from which a box counts as found in the per-picture scores."""


TILED_MAX_BOXES = 10_000
"""Boxes per picture in average precision on large pictures, which hold more objects than COCO's 100."""


@dataclass(frozen=True)
class EvaluateOptions:
    """What is measured.

    Attributes:
        detector, segmenter: measure this part; mask AP needs both.
        confidence: lowest confidence that enters average precision.
        mask_confidence: lowest confidence of a box that is segmented for mask AP; each box costs a decoder run.
        shown_confidence: confidence at which the per-picture F1 is taken.
        tiles: look at every picture in tiles; None shrinks it to the networks' inputs. Average precision then takes
            `TILED_MAX_BOXES` boxes per picture instead of COCO's 100.
    """

    detector: bool = True
    segmenter: bool = True
    confidence: float = 0.001
    mask_confidence: float = 0.05
    shown_confidence: float = 0.25
    tiles: TileOptions | None = None

    @property
    def max_boxes(self) -> int:
        """Boxes per picture that average precision takes."""
        return coco.MAX_BOXES if self.tiles is None else TILED_MAX_BOXES


class PictureScore(BaseModel):
    """One picture: F1 of the boxes at the shown confidence, mean IoU of the masks from the labels' boxes."""

    model_config = ConfigDict(frozen=True)

    name: str
    n_objects: int
    box_f1: float | None = None
    miou: float | None = None

    def worst(self) -> float:
        """Return the lower of the two scores, 0..1."""
        return min(score for score in (self.box_f1, self.miou, 1.0) if score is not None)


class AccuracyReport(BaseModel):
    """The content of an evaluation's JSON; AP and IoU are 0..1, sizes without an object are left out."""

    model_config = ConfigDict(frozen=True)

    kind: str = "accuracy"
    edgekd_version: str
    machine: Machine
    bundle_sha256: str
    backend: str
    backend_version: str
    precision: dict[str, str]
    data: str
    n_images: int
    n_objects: int
    confidence: float
    mask_confidence: float
    box: dict[str, float] = {}
    mask: dict[str, float] = {}
    gt_box_mask: dict[str, float] = {}
    box_by_class: dict[str, float] = {}
    """AP of the boxes of each class, by name."""

    mask_by_class: dict[str, float] = {}
    pictures: tuple[PictureScore, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_an_old_report(cls, content: Any) -> Any:
        """A report that was written before has the version behind the backend's name."""
        if isinstance(content, dict) and "backend_version" not in content:
            backend, _, version = str(content.get("backend", "")).partition(" ")
            return content | {"backend": backend, "backend_version": version}
        return content


def evaluate_chain(
    chain: Chain,
    labels: LabelledSet,
    options: EvaluateOptions | None = None,
    track: Track = iter,
    change: Change = lambda pixels, picture: (pixels, picture),
) -> tuple[dict[str, dict[str, float]], tuple[PictureScore, ...]]:
    """Measure an open chain.

    Args:
        chain: needs only the engines of the parts that are measured.
        labels: pictures and objects; masks are needed only for the segmenter's parts.
        options: what to measure.
        track: shows progress.
        change: what is done to pixels and labels of a picture before it is run; see `edgekd.measure.conditions`.

    Returns:
        `box`, `mask` and `gt_box_mask`: metric -> value (see `coco_metrics`); `box_by_class` and `mask_by_class`:
        class name -> AP; and the score of every picture.

    Raises:
        DataError: the labels' classes are not the bundle's, its detector is oriented and they are not, or a picture
            has another size than its label says.
        BackendUnavailable: faster-coco-eval is not installed.
    """
    options = options or EvaluateOptions()
    if options.detector and chain.manifest.pipeline.head.is_oriented:
        labels = labels.as_oriented()
    run = _Evaluation(chain, labels, options)
    for image_id, picture in enumerate(track(labels.pictures), 1):
        run.add(image_id, *change(read_pixels(picture), picture))
    return run.metrics(), tuple(run.scores)


def evaluate(
    bundle: str | Path,
    labels: LabelledSet,
    options: EvaluateOptions | None = None,
    track: Track = iter,
    n_threads: int | None = None,
) -> AccuracyReport:
    """Open a bundle, measure it and say where; arguments and errors as for `evaluate_chain` and `Chain.open`."""
    options = options or EvaluateOptions()
    with Chain.open(bundle, n_threads) as chain:
        metrics, scores = evaluate_chain(chain, labels, options, track)
        manifest = chain.manifest
    return AccuracyReport(
        edgekd_version=edgekd.__version__,
        machine=describe_machine(),
        bundle_sha256=sha256_of(Path(bundle) / "manifest.json"),
        backend=manifest.backend,
        backend_version=manifest.backend_version,
        precision={name: stage.precision for name, stage in manifest.stages.items()},
        data=f"{labels.source.parent.name}/{labels.source.name}",
        n_images=len(labels.pictures),
        n_objects=sum(len(picture) for picture in labels.pictures),
        confidence=options.confidence,
        mask_confidence=options.mask_confidence,
        box=metrics["box"],
        mask=metrics["mask"],
        gt_box_mask=metrics["gt_box_mask"],
        box_by_class=metrics["box_by_class"],
        mask_by_class=metrics["mask_by_class"],
        pictures=scores,
    )


def map_classes(labels: LabelledSet, bundle_names: Sequence[str], needed: bool = True) -> Int32Array:
    """Find each class of the labels among the bundle's by name: case, spaces, `_` and `-` do not matter.

    Args:
        labels: the set.
        bundle_names: the bundle's class names.
        needed: False gives classes that are not in the bundle numbers of their own instead of an error.

    Returns:
        (n_set_classes,) int32, index into `bundle_names`.

    Raises:
        DataError: an object is of a class that the bundle does not have.
    """
    index_of = {_plain(name): index for index, name in enumerate(bundle_names)}
    used = {int(class_id) for picture in labels.pictures for class_id in picture.class_id}
    missing = [labels.class_names[index] for index in sorted(used) if _plain(labels.class_names[index]) not in index_of]
    if needed and missing:
        raise DataError(
            f"{labels.source} labels the class {missing[0]!r}, and the bundle knows {', '.join(bundle_names[:8])}"
            f"{', ...' if len(bundle_names) > 8 else ''}; give labels of the bundle's classes"
        )
    own = len(bundle_names)
    return np.array([index_of.get(_plain(name), own + i) for i, name in enumerate(labels.class_names)], np.int32)


def _plain(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ").strip()


class _Evaluation:
    """What accumulates over the pictures."""

    def __init__(self, chain: Chain, labels: LabelledSet, options: EvaluateOptions) -> None:
        self.scores: list[PictureScore] = []
        self._chain = chain if options.tiles is None else TiledChain(chain, options.tiles)
        self._labels, self._options = labels, options
        self._class_of = map_classes(labels, chain.manifest.pipeline.class_names, options.detector)
        self._with_masks = options.segmenter and labels.has_masks
        self._seen: list[LabelledPicture] = []
        self._boxes: list[Json] = []
        self._masks: list[Json] = []
        self._ious: list[NDArray[np.float64]] = []
        self._areas: list[NDArray[np.float64]] = []

    def add(self, image_id: int, pixels: UInt8Array, picture: LabelledPicture) -> None:
        """Run one picture."""
        self._seen.append(picture)
        found = Detections.from_boxes(np.zeros((0, 4), np.float32))
        f1 = miou = None
        if self._with_masks and not self._chain.segmenter.takes_boxes:
            found = self._own_masks(image_id, pixels)
        elif self._options.detector:
            wanted = DetectOptions(confidence=self._options.confidence, multi_label=True)
            found = self._chain.detect(pixels, wanted)[: self._options.max_boxes]
        if self._options.detector:
            f1 = _box_f1(found, picture, self._class_of, self._options.shown_confidence)
            results = _box_results(image_id, found)
            self._boxes += results if found.corners is None else with_corners(results, found)
        if self._with_masks and self._chain.segmenter.takes_boxes:
            miou = self._segment(image_id, pixels, picture, found)
        self.scores.append(PictureScore(name=picture.path.name, n_objects=len(picture), box_f1=f1, miou=miou))

    def _segment(self, image_id: int, pixels: UInt8Array, picture: LabelledPicture, found: Detections) -> float | None:
        """Segment detections and labels in one call, so that the encoder runs once; return the labels' mean IoU."""
        kept = found[found.confidence >= self._options.mask_confidence]
        rows = np.flatnonzero(~picture.crowd)
        boxes = np.concatenate([kept.xyxy, picture.xyxy[rows]])
        if not len(boxes):
            return None
        masks = coco.encode_masks(self._chain(pixels, boxes=boxes).masks)
        self._add_masks(image_id, kept, masks)
        truth = coco.encode_labels(picture)
        ious = coco.mask_ious(masks[len(kept) :], [truth[row] for row in rows])
        self._ious.append(ious)
        self._areas.append(picture.area_px[rows])
        return float(ious.mean()) if len(ious) else None

    def _own_masks(self, image_id: int, pixels: UInt8Array) -> Detections:
        """Run a chain that segments only what it finds; masks of boxes under `mask_confidence` do not count."""
        wanted = DetectOptions(confidence=self._options.confidence, multi_label=True, max_boxes=coco.MAX_BOXES)
        result = self._chain(pixels, ChainOptions(detect=wanted))
        kept = result.detections[result.detections.confidence >= self._options.mask_confidence]
        self._add_masks(image_id, kept, coco.encode_masks(result.masks))
        return result.detections

    def _add_masks(self, image_id: int, kept: Detections, masks: Sequence[Json]) -> None:
        """Take the first masks as those of the boxes that were kept, which are the most confident."""
        for result, mask in zip(_box_results(image_id, kept), masks, strict=False):
            del result["bbox"]
            self._masks.append({**result, "segmentation": mask})

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return every metric over the pictures so far."""
        boxes, masks = self._options.detector, self._options.detector and self._with_masks
        truth = coco.coco_labels(self._seen, self._class_of)
        ious, areas = np.concatenate([np.zeros(0), *self._ious]), np.concatenate([np.zeros(0), *self._areas])
        box = self._evaluated_boxes(truth) if boxes else None
        mask = coco.evaluated(truth, self._masks, "segm", self._options.max_boxes) if masks else None
        return {
            "box": coco.overall(box) if box else {},
            "mask": coco.overall(mask) if mask else {},
            "gt_box_mask": coco.iou_by_size(ious, areas),
            "box_by_class": self._named(coco.by_class(box)) if box else {},
            "mask_by_class": self._named(coco.by_class(mask)) if mask else {},
        }

    def _evaluated_boxes(self, truth: Json) -> Any:
        if self._chain.manifest.pipeline.head.is_oriented:
            return evaluated_turned(truth, self._seen, self._boxes, self._options.max_boxes)
        return coco.evaluated(truth, self._boxes, "bbox", self._options.max_boxes)

    def _named(self, values: dict[int, float]) -> dict[str, float]:
        names = self._chain.manifest.pipeline.class_names
        return {names[category]: value for category, value in values.items() if category < len(names)}


def _box_results(image_id: int, found: Detections) -> list[Json]:
    return [
        {
            "image_id": image_id,
            "category_id": int(class_id),
            "score": float(confidence),
            "bbox": [float(box[0]), float(box[1]), float(box[2] - box[0]), float(box[3] - box[1])],
        }
        for box, confidence, class_id in zip(found.xyxy, found.confidence, found.class_id, strict=True)
    ]


def _box_f1(found: Detections, picture: LabelledPicture, class_of: Int32Array, confidence: float) -> float:
    """F1 of the boxes above `confidence`, each matched greedily with an unmatched label of its class."""
    kept = found[found.confidence >= confidence]
    rows = np.flatnonzero(~picture.crowd)
    turned = None if kept.corners is None else label_corners(picture.take(rows))
    truth = Detections(
        picture.xyxy[rows], np.ones(len(rows), np.float32), class_of[picture.class_id[rows]].astype(np.int32), turned
    )
    n_matched = count_matches(kept, truth)
    total = len(kept) + len(rows)
    return 2 * n_matched / total if total else 1.0


def ious_of(first: Detections, second: Detections) -> NDArray[np.float64]:
    """Return the IoU of each box with each of the other list, (n, m): of turned boxes where both lists have them; 0 for
    boxes of different classes.
    """
    if first.corners is not None and second.corners is not None:
        ious = turned_ious(first.corners, second.corners)
    else:
        ious = coco.box_ious(first.xyxy, second.xyxy)
    ious[first.class_id[:, None] != second.class_id[None]] = 0
    return ious


def count_matches(found: Detections, truth: Detections) -> int:
    """Count the boxes that overlap a box of the same class in the other list by `OVERLAP`, one to one, in order."""
    ious = ious_of(found, truth)
    n_matched = 0
    for row in range(len(found) if len(truth) else 0):
        best = int(ious[row].argmax())
        if ious[row, best] >= OVERLAP:
            n_matched += 1
            ious[:, best] = 0
    return n_matched


def worst_pictures(scores: Sequence[PictureScore], n: int) -> list[PictureScore]:
    """Return the `n` pictures with the lowest scores, worst first; pictures without an object come last."""
    return sorted(scores, key=lambda score: (score.n_objects == 0, score.worst(), score.name))[:n]


def accuracy_table(report: AccuracyReport) -> Table:
    """Return one row per metric, in percent."""
    precision = ", ".join(f"{name} {value}" for name, value in report.precision.items())
    table = Table(title=f"{report.data}: {report.n_images} pictures, {report.n_objects} objects, {precision}")
    table.add_column("measured on")
    table.add_column("metric")
    table.add_column("%", justify="right")
    for part, values in _parts(report).items():
        for name, value in values.items():
            table.add_row(part, shown(name), f"{100 * value:.1f}")
            part = ""
    return table


def _parts(report: AccuracyReport) -> dict[str, dict[str, float]]:
    parts = {
        "boxes": report.box,
        "boxes, ap by class": report.box_by_class,
        "masks": report.mask,
        "masks, ap by class": report.mask_by_class,
        "masks from the labels' boxes": report.gt_box_mask,
    }
    return {name: values for name, values in parts.items() if values}
