"""Boxes in, labels out: a chain masks the boxes of a person or of its detector, and says which masks to trust.

Every object gets a score: the segmenter's own estimate of its IoU, and where boxes were given no more than the overlap
of the mask's box with the given one. It is accepted, shown to a person, or dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture, LabelledSet, Segmentation
from edgekd.data.read import read_pixels
from edgekd.errors import DataError, InputError
from edgekd.runtime.chain import MAX_GIVEN_BOXES, Chain, ChainOptions
from edgekd.runtime.results.regions import mask_rle
from edgekd.runtime.sources import read_picture
from edgekd.types import Masks, UInt8Array

Track = Callable[[Sequence[LabelledPicture]], Iterable[LabelledPicture]]
"""Wraps the pictures to show progress, as `rich.progress.track` does; `iter` shows nothing."""

TILE_PX = 224


@dataclass(frozen=True)
class Thresholds:
    """Scores that decide, 0..1: from `accept` on a mask is taken, below `drop` it is left out, between it is shown."""

    accept: float = 0.8
    drop: float = 0.5

    def __post_init__(self) -> None:
        """Check the order.

        Raises:
            InputError: not 0 <= drop <= accept <= 1.
        """
        if not 0 <= self.drop <= self.accept <= 1:
            raise InputError(f"drop is {self.drop} and accept {self.accept}, expected 0 <= drop <= accept <= 1")


@dataclass(frozen=True)
class MaskedSet:
    """What came out.

    Attributes:
        labels: pictures with masks as run lengths; dropped objects are not in it.
        scores: picture -> (n,) float32, the score of every object.
        n_accepted, n_shown, n_dropped: objects by decision.
        n_outside: given boxes that do not overlap their picture, or have no area.
        incomplete: pictures that lost an object; in training the place of that object counts as background.
    """

    labels: LabelledSet
    scores: dict[Path, NDArray[np.float32]]
    n_accepted: int = 0
    n_shown: int = 0
    n_dropped: int = 0
    n_outside: int = 0
    incomplete: tuple[Path, ...] = field(default=())


def mask_boxes(
    chain: Chain, boxes: LabelledSet, thresholds: Thresholds | None = None, track: Track = iter
) -> MaskedSet:
    """Mask the boxes of a labelled set; crowds are left out, masks that it has are replaced.

    Raises:
        DataError: a picture cannot be read, or is not the labelled one.
        InputError: the chain takes no boxes.
    """
    thresholds = thresholds or Thresholds()
    found = [_mask_picture(chain, picture) for picture in track(boxes.without_crowds().pictures)]
    return _decided(replace(boxes, oriented=False), found, thresholds)


def label_pictures(
    chain: Chain, paths: Sequence[Path], options: ChainOptions, thresholds: Thresholds, track: Track = iter
) -> MaskedSet:
    """Let the chain's own detector find the boxes; class names are the bundle's, the score is the estimated IoU.

    Raises:
        InputError: a picture cannot be read.
    """
    names = chain.manifest.pipeline.class_names
    empty = [_empty(path, names) for path in paths]
    found = [_detect_picture(chain, picture, options) for picture in track(empty)]
    source = paths[0].parent if paths else Path()
    return _decided(LabelledSet(source, names, ()), found, thresholds)


Found = tuple[LabelledPicture, NDArray[np.float32], int]
"""A picture with masks, the score of every object, and how many boxes lay outside."""


def _empty(path: Path, names: tuple[str, ...]) -> LabelledPicture:
    return LabelledPicture(
        path=path,
        size_px=(0, 0),
        xyxy=np.zeros((0, 4), np.float32),
        class_id=np.zeros(0, np.int32),
        area_px=np.zeros(0),
        crowd=np.zeros(0, np.bool_),
        segmentations=(),
        class_names=names,
    )


def _detect_picture(chain: Chain, picture: LabelledPicture, options: ChainOptions) -> Found:
    result = chain(read_picture(picture.path), options)
    masked = replace(
        picture,
        size_px=result.masks.size_px,
        xyxy=result.detections.xyxy,
        class_id=result.detections.class_id,
        area_px=result.masks.areas_px().astype(np.float64),
        crowd=np.zeros(len(result), np.bool_),
        segmentations=_run_lengths(result.masks),
    )
    return masked, result.masks.predicted_iou.astype(np.float32), 0


def _mask_picture(chain: Chain, picture: LabelledPicture) -> Found:
    pixels = read_pixels(picture)
    limit = np.array([*picture.size_px[::-1]] * 2, np.float32)
    clipped = picture.xyxy.clip(0, limit)
    inside = ((clipped[:, 2:] - clipped[:, :2]) > 0).all(1)
    kept = picture.take(inside)
    found = [*_masks_of(chain, pixels, clipped[inside])]
    masked = replace(
        kept,
        area_px=np.concatenate([np.zeros(0), *(masks.areas_px() for masks in found)]),
        segmentations=tuple(mask for masks in found for mask in _run_lengths(masks)),
    )
    estimates = np.concatenate([np.zeros(0, np.float32), *(masks.predicted_iou for masks in found)])
    tight = np.concatenate([np.zeros((0, 4)), *(_tight_boxes(masks) for masks in found)])
    return masked, np.minimum(estimates, _overlaps(clipped[inside], tight)).astype(np.float32), int((~inside).sum())


def _masks_of(chain: Chain, pixels: UInt8Array, boxes: NDArray[np.float32]) -> Iterator[Masks]:
    for start in range(0, len(boxes), MAX_GIVEN_BOXES):
        yield chain(pixels, boxes=boxes[start : start + MAX_GIVEN_BOXES]).masks


def _run_lengths(masks: Masks) -> tuple[Segmentation, ...]:
    return tuple(mask_rle(masks, index) for index in range(len(masks)))


def _tight_boxes(masks: Masks) -> NDArray[np.float64]:
    """The box around each mask, (n, 4) xyxy edges in picture pixels; zeros where a mask is empty."""
    boxes = np.zeros((len(masks), 4))
    for index, crop in enumerate(masks.crops):
        if crop.any():
            rows, columns = np.flatnonzero(crop.any(1)), np.flatnonzero(crop.any(0))
            left, top = masks.windows[index][:2]
            boxes[index] = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
    return boxes


def _overlaps(given: NDArray[np.float32], tight: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU of box i with box i, (n,)."""
    sides = np.minimum(given[:, 2:], tight[:, 2:]) - np.maximum(given[:, :2], tight[:, :2])
    common = sides.clip(0).prod(1)
    areas = (given[:, 2:] - given[:, :2]).prod(1) + (tight[:, 2:] - tight[:, :2]).prod(1)
    return np.asarray(common / np.maximum(areas - common, 1e-9), np.float64)


def _decided(labels: LabelledSet, found: Sequence[Found], thresholds: Thresholds) -> MaskedSet:
    pictures, scores, incomplete = [], {}, []
    counts = np.zeros(3, int)
    for picture, score, n_outside in found:
        filled = picture.area_px > 0
        kept = (score >= thresholds.drop) & filled
        accepted = kept & (score >= thresholds.accept)
        counts += accepted.sum(), (kept & ~accepted).sum(), (~kept).sum()
        pictures.append(picture.take(kept))
        scores[picture.path] = score[kept]
        if n_outside or not kept.all():
            incomplete.append(picture.path)
    if not sum(map(len, pictures)):
        raise DataError(f"{labels.source}: none of {counts.sum()} masks reaches the score {thresholds.drop}")
    return MaskedSet(
        labels=replace(labels, pictures=tuple(pictures)),
        scores=scores,
        n_accepted=int(counts[0]),
        n_shown=int(counts[1]),
        n_dropped=int(counts[2]),
        n_outside=sum(n_outside for _, _, n_outside in found),
        incomplete=tuple(incomplete),
    )


def doubtful(masked: MaskedSet, thresholds: Thresholds) -> list[tuple[LabelledPicture, int, float]]:
    """Return (picture, object, score) of the kept objects below `accept`, the worst first."""
    rows = [
        (picture, int(index), float(masked.scores[picture.path][index]))
        for picture in masked.labels.pictures
        for index in np.flatnonzero(masked.scores[picture.path] < thresholds.accept)
    ]
    return sorted(rows, key=lambda row: row[2])


def draw_doubtful(picture: LabelledPicture, index: int, score: float) -> UInt8Array:
    """Draw one object with its box, its outline, its class and its score: (TILE_PX, TILE_PX, 3) uint8 BGR."""
    left, top, right, bottom = picture.xyxy[index]
    side = max(right - left, bottom - top, 8) * 1.6
    scale = TILE_PX / side
    shift = np.array([(left + right) / 2 - side / 2, (top + bottom) / 2 - side / 2])
    matrix = np.array([[scale, 0, -shift[0] * scale], [0, scale, -shift[1] * scale]])
    tile = cv2.warpAffine(read_picture(picture.path), matrix, (TILE_PX, TILE_PX), flags=cv2.INTER_LINEAR)
    rings = [((ring - shift) * scale).round().astype(np.int32) for ring in picture.outlines(index)]
    box = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    cv2.polylines(tile, [((box - shift) * scale).round().astype(np.int32)], True, (0, 200, 255), 1)
    cv2.polylines(tile, rings, True, (0, 255, 0), 1, cv2.LINE_AA)
    text = f"{picture.name_of(index)} {score:.2f}"
    cv2.rectangle(tile, (0, 0), (TILE_PX, 18), (0, 0, 0), cv2.FILLED)
    cv2.putText(tile, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)
