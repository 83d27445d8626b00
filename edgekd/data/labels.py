"""The one form of labels: every reader returns a `LabelledSet`; training, calibration, evaluation and gates take it.

Coordinates are pixels of the upright picture, x to the right, y down, pixel centres at +0.5. Nothing is decoded here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.data.rle import coco_masks, decode_rle
from edgekd.errors import DataError
from edgekd.runtime.results.regions import one_ring, polygons
from edgekd.types import BoolArray, Float32Array, Int32Array, UInt8Array

Segmentation = list[list[float]] | dict[str, Any]
"""A mask as COCO writes it: rings `[x1, y1, x2, y2, ...]`, or run lengths with `size` and `counts`."""

Ring = Float32Array
"""(k, 2) float32, x and y of the corners of one closed outline."""


@dataclass(frozen=True)
class LabelledPicture:
    """One picture and its n objects.

    Attributes:
        path: the file.
        size_px: (height, width).
        xyxy: (n, 4) float32; of an oriented box the box around it.
        class_id: (n,) int32, index into `class_names`.
        area_px: (n,) float64, area of the object (of its box where it has no mask); it decides small, medium or large.
        crowd: (n,) bool, regions of many objects that AP ignores and training leaves out.
        segmentations: n masks as COCO writes them, None where an object has a box only. An oriented box is one ring
            of its four corners.
        class_names: of the whole set.
    """

    path: Path
    size_px: tuple[int, int]
    xyxy: Float32Array
    class_id: Int32Array
    area_px: NDArray[np.float64]
    crowd: BoolArray
    segmentations: tuple[Segmentation | None, ...]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.xyxy)

    def name_of(self, index: int) -> str:
        """Return the class name of an object."""
        return self.class_names[int(self.class_id[index])]

    def take(self, rows: NDArray[np.intp] | BoolArray) -> LabelledPicture:
        """Return the picture with these objects alone: (k,) indices, or (n,) bool."""
        kept = np.arange(len(self))[rows]
        return replace(
            self,
            xyxy=self.xyxy[kept],
            class_id=self.class_id[kept],
            area_px=self.area_px[kept],
            crowd=self.crowd[kept],
            segmentations=tuple(self.segmentations[row] for row in kept),
        )

    def rings(self, index: int) -> tuple[Ring, ...]:
        """Return the outline of an object as `draw_mask` fills it: its rings, those along the pixel edges of run
        lengths, or the four corners of its box.
        """
        mask = self.segmentations[index]
        if isinstance(mask, list):
            return tuple(np.asarray(ring, np.float32).reshape(-1, 2) for ring in mask)
        if isinstance(mask, dict):
            return mask_rings(decode_rle(mask, self.size_px))
        left, top, right, bottom = self.xyxy[index]
        return (np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32),)

    def mask(self, index: int) -> UInt8Array:
        """Return an object's mask, (H, W) uint8 of 0 and 1; of an object without one its filled box."""
        mask = self.segmentations[index]
        return decode_rle(mask, self.size_px) if isinstance(mask, dict) else draw_mask(self.rings(index), self.size_px)

    def outlines(self, index: int) -> tuple[Ring, ...]:
        """Return the outline of an object for other tools: its rings, or those along the pixel edges of run lengths."""
        mask = self.segmentations[index]
        if not isinstance(mask, dict):
            return self.rings(index)
        parts = polygons(decode_rle(mask, self.size_px) > 0)
        return tuple(np.array(part[0][:-1], np.float32) for part in parts)

    def one_outline(self, index: int) -> Ring:
        """Return an object as one ring, (k, 2): parts, and holes of run lengths, are joined by bridges without width.

        Raises:
            DataError: the mask is empty.
        """
        mask = self.segmentations[index]
        if isinstance(mask, dict):
            parts = polygons(decode_rle(mask, self.size_px) > 0)
        else:
            parts = [[[*ring.tolist(), ring[0].tolist()]] for ring in self.rings(index)]
        if not parts:
            raise DataError(f"object {index + 1} of {self.path.name} has an empty mask; remove it")
        return np.array(one_ring(parts)[:-1], np.float32)

    def turned_corners(self, index: int) -> Ring:
        """Return the corners of the smallest turned box around an object: (4, 2); a ring of four corners stays."""
        rings = self.rings(index)
        if len(rings) == 1 and len(rings[0]) == 4:
            return rings[0]
        return np.asarray(cv2.boxPoints(cv2.minAreaRect(np.concatenate(rings))), np.float32)

    def oriented_boxes(self) -> Float32Array:
        """Return the smallest turned box around every object: (n, 5) centre x, y, width, height and radians.

        The angle turns the width from the x axis towards y and is in [0, pi / 2), whatever OpenCV's version says.
        """
        rows = np.zeros((len(self), 5), np.float32)
        for index in range(len(self)):
            (x, y), (width, height), degrees = cv2.minAreaRect(np.concatenate(self.rings(index)))
            if math.floor(degrees / 90) % 2:  # a quarter turn exchanges the sides
                width, height = height, width
            rows[index] = x, y, width, height, np.deg2rad(degrees % 90)
        return rows


@dataclass(frozen=True)
class LabelledSet:
    """Pictures with labels.

    Attributes:
        source: the file or folder that described them.
        class_names: what `class_id` counts.
        pictures: with their objects; a picture without one is background.
        split: `train`, `val` and so on, None where the source has no parts.
        oriented: the rings are four corners of turned boxes, not outlines.
    """

    source: Path
    class_names: tuple[str, ...]
    pictures: tuple[LabelledPicture, ...]
    split: str | None = None
    oriented: bool = False

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def n_objects(self) -> int:
        """How many objects all pictures have."""
        return sum(len(picture) for picture in self.pictures)

    @property
    def has_masks(self) -> bool:
        """Whether every object that is not a crowd has a mask."""
        return not self.oriented and all(
            mask is not None
            for picture in self.pictures
            for mask, crowd in zip(picture.segmentations, picture.crowd, strict=True)
            if not crowd
        )

    def only(self, names: Iterable[str]) -> LabelledSet:
        """Keep the pictures with these file names.

        Raises:
            DataError: a name is not in the set.
        """
        wanted = set(names)
        missing = sorted(wanted - {picture.path.name for picture in self.pictures})
        if missing:
            raise DataError(f"{self.source} has no picture {missing[0]}; name pictures that it lists")
        return replace(self, pictures=tuple(p for p in self.pictures if p.path.name in wanted))

    def first(self, limit: int | None) -> LabelledSet:
        """Keep the first so many pictures; None keeps all."""
        return replace(self, pictures=self.pictures[:limit])

    def spread(self, limit: int | None) -> LabelledSet:
        """Keep so many pictures at even distances: sets are often sorted by class. None keeps all."""
        if limit is None or limit >= len(self):
            return self
        rows = np.linspace(0, len(self) - 1, limit).round().astype(int)
        return replace(self, pictures=tuple(self.pictures[row] for row in rows))

    def without_crowds(self) -> LabelledSet:
        """Leave out the regions of many objects; the pictures stay."""
        return replace(self, pictures=tuple(p.take(~p.crowd) if p.crowd.any() else p for p in self.pictures))

    def as_oriented(self) -> LabelledSet:
        """Take every object as the smallest turned box around its outline; four corners stay as they are.

        A set of four-cornered outlines alone, as YOLO-obb labels are, becomes `oriented`; one of other outlines keeps
        them as masks.

        Raises:
            DataError: an object has an upright box alone.
        """
        all_quads = True
        for picture in self.pictures:
            for index, mask in enumerate(picture.segmentations):
                if mask is None and not picture.crowd[index]:
                    raise DataError(
                        f"{self.source}: object {index + 1} of {picture.path.name} has an upright box and the detector "
                        "is oriented; give YOLO-obb or DOTA labels, or polygons"
                    )
                all_quads &= isinstance(mask, list) and len(mask) == 1 and len(mask[0]) == 8
        return replace(self, oriented=self.oriented or all_quads)

    def for_masks(self) -> LabelledSet:
        """Keep what a segmenter can learn from: single objects with masks; pictures without one are left out.

        Raises:
            DataError: an object has a box only, or nothing is left.
        """
        kept = tuple(picture for picture in self.without_crowds().pictures if len(picture))
        for picture in kept:
            if self.oriented or None in picture.segmentations:
                index = 0 if self.oriented else picture.segmentations.index(None)
                raise DataError(
                    f"{self.source}: object {index + 1} of {picture.path.name} has no polygon; give instance polygons, "
                    "or make them from the boxes with: edgekd label"
                )
        if not kept:
            raise DataError(f"{self.source} holds no object with a polygon; give labels with instance polygons")
        return replace(self, pictures=kept)


def draw_mask(rings: Sequence[Ring], size_px: tuple[int, int]) -> UInt8Array:
    """Fill rings into a (H, W) uint8 mask of 0 and 1, with COCO's own rules: exactly the mask that evaluation takes.

    Corners are places on the grid of pixel edges, so that a ring along the edges of pixels gives these pixels. Rings
    are united; a ring with fewer than three corners has no area.

    Raises:
        BackendUnavailable: faster-coco-eval is not installed.
    """
    coder = coco_masks()
    flat = [np.asarray(ring, np.float64).ravel().tolist() for ring in rings if len(ring) >= 3]
    if not flat:
        return np.zeros(size_px, np.uint8)
    return np.asarray(coder.decode(coder.merge(coder.frPyObjects(flat, *size_px))), np.uint8)


def mask_rings(mask: UInt8Array) -> tuple[Ring, ...]:
    """Return the parts of a (H, W) mask as rings along the edges of pixels; `draw_mask` fills them back.

    The holes of a part are joined to its outline by bridges without width.
    """
    left, top, width, height = cv2.boundingRect(mask)
    parts = polygons(mask[top : top + height, left : left + width] > 0, (left, top))
    return tuple(np.array(one_ring([part])[:-1], np.float32) for part in parts)
