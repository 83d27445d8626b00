"""A large picture as overlapping tiles: sizes in, windows out. Pure arithmetic; nothing is read here.

A window is (left, top, right, bottom) in pixels of the picture, right and bottom exclusive.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.model_set import ImageInput, Pipeline
from edgekd.types import Int32Array

Window = tuple[int, int, int, int]

TILED_FROM = 3.0
"""A picture is tiled by itself when the detector's input would shrink it more than this; its objects would otherwise be
less than a third of their size."""

OVERLAP = 0.25
"""Overlap of two neighbours as a part of the tile, where nothing is known about the objects."""

MIN_TILE_PX = 64

TILE_STEP_PX = 32
"""A side that is computed is rounded up to a multiple of this."""


@dataclass(frozen=True)
class TileOptions:
    """How a picture is cut.

    Attributes:
        tile_px: side of a tile in pixels of the picture; None takes the side that the detector was trained for, see
            `trained_tile_px`.
        object_px: longer side of the largest usual object; tiles overlap by this much, so that one tile sees it whole.
            Larger objects are put together from their pieces. None takes a quarter of the tile.
    """

    tile_px: int | None = None
    object_px: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: the tile is smaller than 64 px, or the object is not smaller than the tile.
        """
        if self.tile_px is not None and self.tile_px < MIN_TILE_PX:
            raise InputError(f"tile_px is {self.tile_px}, expected at least {MIN_TILE_PX} px; give 640, for example")
        if self.object_px is not None and self.object_px < 0:
            raise InputError(f"object_px is {self.object_px}, expected 0 or more pixels; give 160, for example")


@dataclass(frozen=True)
class TileGrid:
    """Tiles of one size that cover a picture, row by row.

    The tiles are spread evenly: neighbours overlap by at least `overlap_px`, and what a fixed step would leave for a
    narrow last tile becomes a little more overlap everywhere. A picture smaller than a tile is one tile of its size.

    Attributes:
        size_px: (height, width) of the picture.
        tile_px: side of a tile.
        overlap_px: least overlap of two neighbours.
    """

    size_px: tuple[int, int]
    tile_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        """Check that neighbours advance.

        Raises:
            InputError: the overlap is not smaller than the tile.
        """
        if not 0 <= self.overlap_px < self.tile_px:
            raise InputError(
                f"tiles of {self.tile_px} px cannot overlap by {self.overlap_px} px, expected less than a tile; "
                "give larger tiles, or a smaller object_px"
            )

    @cached_property
    def tops_px(self) -> tuple[int, ...]:
        """Upper edges of the rows of tiles."""
        return _starts(self.size_px[0], self.tile_px, self.overlap_px)

    @cached_property
    def lefts_px(self) -> tuple[int, ...]:
        """Left edges of the columns of tiles."""
        return _starts(self.size_px[1], self.tile_px, self.overlap_px)

    def __len__(self) -> int:
        return len(self.tops_px) * len(self.lefts_px)

    def row(self, index: int) -> list[Window]:
        """Return the windows of one row of tiles, from left to right."""
        height, width = self.size_px
        top = self.tops_px[index]
        bottom = min(top + self.tile_px, height)
        return [(left, top, min(left + self.tile_px, width), bottom) for left in self.lefts_px]

    def __iter__(self) -> Iterator[Window]:
        for index in range(len(self.tops_px)):
            yield from self.row(index)


def trained_tile_px(pipeline: Pipeline) -> int:
    """Return the side of a tile that shows objects at the scale of the detector's training.

    It is the shorter side of the detector's input by `trained_scale`, and the input's own side where that is unknown.
    """
    side_px = min(pipeline.detector_input.height_px, pipeline.detector_input.width_px)
    if pipeline.trained_scale is None:
        return side_px
    return max(MIN_TILE_PX, math.ceil(side_px / pipeline.trained_scale / TILE_STEP_PX) * TILE_STEP_PX)


def choose_grid(size_px: tuple[int, int], pipeline: Pipeline, options: TileOptions | None = None) -> TileGrid:
    """Choose tiles for a picture of (height, width) and a detector.

    Args:
        size_px: of the picture.
        pipeline: of the bundle; it tells the tile where `options` name none.
        options: see there.

    Raises:
        InputError: the objects are not smaller than the tile.
    """
    options = options or TileOptions()
    tile_px = options.tile_px or trained_tile_px(pipeline)
    overlap_px = round(OVERLAP * tile_px) if options.object_px is None else options.object_px
    return TileGrid(size_px, tile_px, overlap_px)


def calls_for_tiles(size_px: tuple[int, int], detector_input: ImageInput) -> float | None:
    """Return how many times the detector's input would shrink the picture, None up to `TILED_FROM`."""
    shrink = max(size_px[0] / detector_input.height_px, size_px[1] / detector_input.width_px)
    return shrink if shrink > TILED_FROM else None


def best_tiles(grid: TileGrid, xyxy: NDArray[np.float32]) -> Int32Array:
    """Return for each box the index of the tile that shows most of it, and of equal ones the most central: (n,) int32.

    Args:
        grid: the tiles.
        xyxy: (n, 4) boxes in pixels of the picture.
    """
    columns = _best_starts(grid.lefts_px, grid.tile_px, xyxy[:, 0], xyxy[:, 2])
    rows = _best_starts(grid.tops_px, grid.tile_px, xyxy[:, 1], xyxy[:, 3])
    return np.asarray(rows * len(grid.lefts_px) + columns, np.int32)


def _best_starts(
    starts: tuple[int, ...], tile_px: int, low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.intp]:
    start = np.asarray(starts, np.float64)[None]
    seen = np.minimum(high[:, None], start + tile_px) - np.maximum(low[:, None], start)
    off_centre = np.abs((low + high)[:, None] / 2 - (start + tile_px / 2))
    # Distances are under a tile's side wherever anything is seen, so they only decide between equal views.
    return np.asarray((np.round(seen) - off_centre / (1e3 * tile_px)).argmax(1), np.intp)


def _starts(length_px: int, tile_px: int, overlap_px: int) -> tuple[int, ...]:
    if length_px <= tile_px:
        return (0,)
    n = -(-(length_px - overlap_px) // (tile_px - overlap_px))
    return tuple(round(index * (length_px - tile_px) / (n - 1)) for index in range(n))
