"""The kind `crop`: one small network looks at a crop per box.

boxes -> windows -> crops of the picture -> network -> logits -> masks in their windows

Crops of an oriented detector's boxes are turned with them, see `edgekd.runtime.turned_crops`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.graphs import CROPS, MASK_LOGITS, PREDICTED_IOU
from edgekd.model_set import CropInput
from edgekd.runtime.crops import windows_of
from edgekd.runtime.detect import Found
from edgekd.runtime.engines import Engine, floats
from edgekd.runtime.pictures import Pictures
from edgekd.runtime.segment import MaskOptions, box_chunks
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.runtime.turned_crops import boxes_to_cut, masks_of_boxes
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
        picture_px = picture.shape[0], picture.shape[1]
        boxes, turns = boxes_to_cut(found.detections, picture_px)
        windows = windows_of(boxes, self._spec.window_factor)
        logits, iou = [], []
        for rows, size in box_chunks(len(windows), self._buckets, CHUNK_CROPS):
            n = len(windows[rows])
            chunk = np.minimum(np.arange(rows.start, rows.start + size), rows.start + n - 1)
            crops = self._pictures.crops(
                windows[chunk], self._spec, self._network, None if turns is None else turns[chunk]
            )
            watch.lap("segmenter_preprocess")
            outputs = self._network.infer({CROPS: crops})
            watch.lap("segmenter")
            logits.append(floats(outputs, MASK_LOGITS)[:n].copy())
            iou.append(floats(outputs, PREDICTED_IOU)[:n].copy())
        answer = np.concatenate(logits), np.concatenate(iou)
        masks = masks_of_boxes(answer, found.detections, picture_px, self._spec, options)
        watch.lap("mask_postprocess")
        return masks
