"""A chain that looks at every picture in tiles: called like a `Chain`, for measuring large pictures in memory."""

from __future__ import annotations

import numpy as np

from edgekd.bundle import Manifest
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.mosaic import MosaicOptions, collect, run_mosaic
from edgekd.runtime.segmenters import Segmenter
from edgekd.runtime.tiles import TileOptions, best_tiles, choose_grid
from edgekd.runtime.windows import ArrayWindows
from edgekd.types import BoolArray, ChainResult, Detections, Float32Array, Masks, UInt8Array


class TiledChain:
    """A chain and how pictures are cut for it; it serves one thread and does not close the chain."""

    def __init__(self, chain: Chain, tiles: TileOptions) -> None:
        self._chain, self._tiles = chain, tiles

    @property
    def manifest(self) -> Manifest:
        """The bundle's."""
        return self._chain.manifest

    @property
    def segmenter(self) -> Segmenter:
        """The bundle's."""
        return self._chain.segmenter

    def detect(self, picture: UInt8Array, options: DetectOptions | None = None) -> Detections:
        """Find boxes in all tiles; arguments and errors as for `Chain.detect`, `max_boxes` counts per tile."""
        return self._run(picture, ChainOptions(detect=options or DetectOptions()), masks=False).detections

    def __call__(
        self, picture: UInt8Array, options: ChainOptions | None = None, boxes: Float32Array | None = None
    ) -> ChainResult:
        """Find objects in all tiles, or segment boxes, each in the tile that shows most of it.

        Arguments and errors as for a call of `Chain`. A mask of a given box ends where its tile ends.
        """
        options = options or ChainOptions()
        if boxes is None:
            return self._run(picture, options, masks=True)
        return self._segment(picture, options, boxes)

    def _run(self, picture: UInt8Array, options: ChainOptions, masks: bool) -> ChainResult:
        windows = ArrayWindows(picture)
        wanted = MosaicOptions(options, self._tiles, masks, workers=1)
        return collect(run_mosaic(self._chain, windows, wanted), windows.size_px)

    def _segment(self, picture: UInt8Array, options: ChainOptions, boxes: Float32Array) -> ChainResult:
        size_px = picture.shape[0], picture.shape[1]
        grid = choose_grid(size_px, self.manifest.pipeline, self._tiles)
        tiles, chosen = list(grid), best_tiles(grid, boxes)
        windows = np.zeros((len(boxes), 4), np.int32)
        crops: list[BoolArray] = [np.zeros((0, 0), np.bool_)] * len(boxes)
        predicted = np.zeros(len(boxes), np.float32)
        for index in np.unique(chosen):
            rows = np.flatnonzero(chosen == index)
            left, top, right, bottom = tiles[index]
            offset = np.array([left, top, left, top])
            pixels = np.ascontiguousarray(picture[top:bottom, left:right])
            found = self._chain(pixels, options, boxes=(boxes[rows] - offset).astype(np.float32)).masks
            windows[rows] = found.windows + offset
            predicted[rows] = found.predicted_iou
            for row, crop in zip(rows, found.crops, strict=True):
                crops[row] = crop
        masks = Masks(size_px, windows, crops, predicted)
        return ChainResult(Detections.from_boxes(boxes), masks, self.manifest.pipeline.class_names)
