"""The kind `crop`: one small network looks at a crop per box.

boxes -> windows -> crops of the picture -> network -> logits -> masks in their windows
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.graphs import CROPS, MASK_LOGITS, PREDICTED_IOU
from edgekd.model_set import CropInput
from edgekd.runtime.crops import lattice_of, windows_of
from edgekd.runtime.detect import Found
from edgekd.runtime.engines import Engine, floats
from edgekd.runtime.pictures import Pictures
from edgekd.runtime.segment import MaskOptions, box_chunks, masks_on_lattices
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import Masks, UInt8Array

CHUNK_CROPS = 32
"""Crops that one call of the network takes: a call costs as much as a crop or two, and a chunk bounds the memory."""


class CropSegmenter:
    """A network on crops, in chunks of boxes; see `edgekd.runtime.segmenters.Segmenter`.

    A mask depends on its own box alone: other boxes never change it.
    """

    takes_boxes = True
    laps_per_box: tuple[str, ...] = ("segmenter_preprocess", "segmenter", "mask_postprocess")

    def __init__(self, network: Engine, spec: CropInput, buckets: Sequence[int], pictures: Pictures) -> None:
        self._network, self._spec, self._buckets, self._pictures = network, spec, tuple(buckets), pictures

    def start(self, watch: Stopwatch) -> None:
        """Nothing: every crop needs a box."""

    def __call__(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        """Segment every box of `found`."""
        windows = windows_of(found.detections.xyxy, self._spec.window_factor)
        logits, iou = [], []
        for rows, size in box_chunks(len(windows), self._buckets, CHUNK_CROPS):
            chunk = windows[rows]
            n = len(chunk)
            if size > n:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - n, 0)])
            crops = self._pictures.crops(chunk, self._spec, self._network)
            watch.lap("segmenter_preprocess")
            outputs = self._network.infer({CROPS: crops})
            watch.lap("segmenter")
            logits.append(floats(outputs, MASK_LOGITS)[:n].copy())
            iou.append(floats(outputs, PREDICTED_IOU)[:n].copy())
        picture_px = picture.shape[0], picture.shape[1]
        lattices = [lattice_of(window, self._spec.side_px, picture_px) for window in windows]
        masks = masks_on_lattices(np.concatenate(logits), lattices, np.concatenate(iou), picture_px, options)
        watch.lap("mask_postprocess")
        return masks
