"""Masks of objects that stay where they are: that of an earlier frame is taken again, and only moved boxes are masked.

picture -> detector -> boxes that agree with a remembered one keep its mask; the others -> segmenter

A box is compared with the box for which its mask was made, so that slow objects do not drift away from their masks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekd.errors import InputError
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.segment import empty_masks
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import BoolArray, ChainResult, Detections, Float32Array, Int32Array, Masks, UInt8Array

NEW_AFTER_FRAMES = 25
"""A mask is made anew after so many frames, about a second: a box says nothing of what changes within it."""


@dataclass(frozen=True)
class _Kept:
    """A mask, and the box and class for which it was made `age` frames ago."""

    xyxy: Float32Array
    class_id: int
    window: Int32Array
    crop: BoolArray
    predicted_iou: float
    age: int = 0


class ReusedMasks:
    """A chain for the frames of one stream; it is called like a chain and does not close it.

    Attributes:
        n_masks, n_reused: masks given away so far, and those of them that were not made anew.
    """

    def __init__(self, chain: Chain, iou: float = 0.9) -> None:
        """Start without masks.

        Args:
            chain: an open bundle whose segmenter takes boxes.
            iou: a mask is taken again where the new box agrees this much with the box of the mask.

        Raises:
            InputError: the limit is not between 0 and 1, or the bundle's masks do not come from upright boxes.
        """
        if not 0 < iou < 1:
            raise InputError(f"reuse_masks is {iou}, expected a number between 0 and 1; give 0.9")
        if not chain.segmenter.takes_boxes or chain.manifest.pipeline.head.is_oriented:
            raise InputError(
                f"reuse_masks was given for a bundle of the kind {chain.manifest.kind} whose masks or boxes are of "
                "another form, expected masks of upright boxes; leave it out"
            )
        self._chain, self._iou = chain, iou
        self._kept: list[_Kept] = []
        self._size_px: tuple[int, int] | None = None
        self.n_masks = self.n_reused = 0

    def __call__(self, picture: UInt8Array, options: ChainOptions) -> ChainResult:
        """Find the objects of the next frame; arguments and errors as for a chain."""
        watch = Stopwatch()
        found = self._chain.detect(picture, options.detect)
        watch.lap("detector")
        size_px = picture.shape[0], picture.shape[1]
        if size_px != self._size_px:
            self._kept, self._size_px = [], size_px
        kept = self._known(found)
        fresh = np.flatnonzero([each is None for each in kept])
        made = self._made(picture, options, found[fresh]) if len(fresh) else empty_masks(size_px)
        watch.lap("masks")
        for row, index in enumerate(fresh):
            kept[index] = _Kept(
                found.xyxy[index].copy(), int(found.class_id[index]), made.windows[row].copy(), made.crops[row],
                float(made.predicted_iou[row]),
            )  # fmt: skip
        self._kept = [each for each in kept if each is not None]
        self.n_masks += len(found)
        self.n_reused += len(found) - len(fresh)
        return ChainResult(found, _masks(self._kept, size_px), self._chain.manifest.pipeline.class_names, watch.stop())

    def _made(self, picture: UInt8Array, options: ChainOptions, found: Detections) -> Masks:
        return self._chain(picture, options, boxes=found.xyxy, class_id=found.class_id).masks

    def _known(self, found: Detections) -> list[_Kept | None]:
        """Give each box the remembered mask that agrees best with it, the most confident first, each mask once."""
        free = [each for each in self._kept if each.age < NEW_AFTER_FRAMES]
        known: list[_Kept | None] = []
        for box, class_id in zip(found.xyxy, found.class_id, strict=True):
            ious = [_iou(box, each.xyxy) if each.class_id == class_id else 0.0 for each in free]
            best = int(np.argmax(ious)) if ious else 0
            if not ious or ious[best] < self._iou:
                known.append(None)
                continue
            old = free.pop(best)
            known.append(_Kept(old.xyxy, old.class_id, old.window, old.crop, old.predicted_iou, old.age + 1))
        return known


def _iou(a: Float32Array, b: Float32Array) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    inter = float(sides.prod())
    return inter / max(float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - inter, 1e-9)


def _masks(kept: list[_Kept], size_px: tuple[int, int]) -> Masks:
    windows = np.array([each.window for each in kept], np.int32).reshape(-1, 4)
    predicted = np.array([each.predicted_iou for each in kept], np.float32)
    return Masks(size_px, windows, [each.crop for each in kept], predicted)
