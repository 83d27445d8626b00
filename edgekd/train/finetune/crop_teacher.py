"""Masks for objects that are labelled with boxes only: a bundle of the kind `sam` draws them.

In: labelled pictures and an open chain. Out: the same pictures with a mask for every object, and how far each mask is
to be trusted: 1 where it was labelled, the teacher's predicted IoU where it was drawn. An object whose drawn mask is
empty is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture, mask_rings
from edgekd.data.read import read_pixels
from edgekd.errors import InputError
from edgekd.runtime.chain import Chain

Watch = Callable[[int, int], None]


@dataclass(frozen=True)
class Taught:
    """Pictures whose objects all have masks, the trust in each mask, and how many a teacher drew."""

    pictures: tuple[LabelledPicture, ...]
    weights: tuple[NDArray[np.float32], ...]
    n_drawn: int


def open_teacher(folder: Path) -> Chain:
    """Open a bundle as teacher.

    Raises:
        InputError: the bundle is of another kind than `sam`.
        EdgekdError: as for `Chain.open`.
    """
    chain = Chain.open(folder, n_threads=1)
    if chain.manifest.kind != "sam":
        kind = chain.manifest.kind
        chain.close()
        raise InputError(
            f"the teacher {folder} is a bundle of the kind {kind}, expected the kind sam, which draws masks of objects "
            "that nobody labelled; build one with: edgekd build-engine"
        )
    return chain


def teach(samples: Sequence[LabelledPicture], teacher: Chain, watch: Watch = lambda done, total: None) -> Taught:
    """Draw the masks that are missing; labelled masks stay as they are."""
    pictures, weights, n_drawn = [], [], 0
    for number, sample in enumerate(samples):
        missing = np.array([mask is None for mask in sample.segmentations])
        trust = np.ones(len(sample), np.float32)
        if missing.any():
            sample, trust = _drawn(sample, missing, teacher)
            n_drawn += int(missing.sum())
        if len(sample):
            pictures.append(sample)
            weights.append(trust)
        watch(number + 1, len(samples))
    return Taught(tuple(pictures), tuple(weights), n_drawn)


def _drawn(
    sample: LabelledPicture, missing: NDArray[np.bool_], teacher: Chain
) -> tuple[LabelledPicture, NDArray[np.float32]]:
    masks = teacher(read_pixels(sample), boxes=sample.xyxy[missing]).masks
    segmentations, trust = list(sample.segmentations), np.ones(len(sample), np.float32)
    for place, row in enumerate(np.flatnonzero(missing)):
        rings = mask_rings(masks.full(place).astype(np.uint8))
        segmentations[row] = [ring.ravel().tolist() for ring in rings]
        trust[row] = float(np.clip(masks.predicted_iou[place], 0, 1)) if rings else 0.0
    kept = trust > 0
    return replace(sample, segmentations=tuple(segmentations)).take(kept), trust[kept]
