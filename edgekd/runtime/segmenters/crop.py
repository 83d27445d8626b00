"""The kind `crop`: one small network looks at a crop per box.

boxes -> windows -> crops of the picture -> network -> logits -> masks in their windows
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.graphs import CROPS, MASK_LOGITS, PREDICTED_IOU
from edgekd.model_set import CropInput
from edgekd.runtime.crops import cut, lattice_of, windows_of
from edgekd.runtime.detect import Found
from edgekd.runtime.engines import Engine, floats
from edgekd.runtime.segment import MaskOptions, box_chunks, masks_on_lattices
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import Float32Array, Masks, UInt8Array


class CropSegmenter:
    """A network on crops, in chunks of boxes; see `edgekd.runtime.segmenters.Segmenter`.

    A mask depends on its own box alone: other boxes never change it.
    """

    takes_boxes = True
    laps_per_box: tuple[str, ...] = ("segmenter_preprocess", "segmenter", "mask_postprocess")

    def __init__(self, network: Engine, spec: CropInput, buckets: Sequence[int]) -> None:
        self._network, self._spec, self._buckets = network, spec, tuple(buckets)

    def __call__(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        """Segment every box of `found`."""
        windows = windows_of(found.detections.xyxy, self._spec.window_factor)
        logits, iou = [], []
        for rows, size in box_chunks(len(windows), self._buckets):
            crops = cut(picture, windows[rows], self._spec)
            watch.lap("segmenter_preprocess")
            chunk_logits, chunk_iou = self._infer(crops, size)
            watch.lap("segmenter")
            logits.append(chunk_logits)
            iou.append(chunk_iou)
        picture_px = picture.shape[0], picture.shape[1]
        lattices = [lattice_of(window, self._spec.side_px, picture_px) for window in windows]
        masks = masks_on_lattices(np.concatenate(logits), lattices, np.concatenate(iou), picture_px, options)
        watch.lap("mask_postprocess")
        return masks

    def _infer(self, crops: UInt8Array, size: int) -> tuple[Float32Array, Float32Array]:
        """Logits (n, S, S) and predicted IoU (n,) of n crops; the network is called with `size` of them."""
        n = len(crops)
        if size > n:
            crops = np.concatenate([crops, np.repeat(crops[-1:], size - n, 0)])
        outputs = self._network.infer({CROPS: crops})
        return floats(outputs, MASK_LOGITS)[:n].copy(), floats(outputs, PREDICTED_IOU)[:n].copy()
