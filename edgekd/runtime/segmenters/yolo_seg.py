"""The kind `yolo-seg`: the detector brings prototypes for the picture and coefficients for every box.

coefficients x the prototypes around a box -> logits -> mask within the box

Masks are computed at the resolution of the picture, each for its box alone, as Ultralytics does with `retina_masks`;
a tensor of the whole picture is never made.
"""

from __future__ import annotations

import math

import numpy as np

from edgekd.errors import InputError
from edgekd.graphs import MASK_COEFFICIENTS, MASK_PROTOTYPES
from edgekd.runtime.detect import Found
from edgekd.runtime.preprocess import Placement
from edgekd.runtime.segment import CELL_PX, Lattice, MaskOptions, input_lattice, masks_on_lattices
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import Float32Array, Masks, UInt8Array


class YoloSegSegmenter:
    """Masks of an Ultralytics segment network; see `edgekd.runtime.segmenters.Segmenter`.

    The network does not rate its masks, so that a mask's predicted IoU is the confidence of its box.
    """

    takes_boxes = False
    laps_per_box: tuple[str, ...] = ("mask_postprocess",)

    def start(self, watch: Stopwatch) -> None:
        """Nothing: the detector does all of it."""

    def __call__(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        """Segment every box of `found`, which the detector must have found in this picture."""
        if found.placement is None or found.anchor is None:
            raise InputError("boxes were given from outside, expected those that this yolo-seg network itself found")
        prototypes = np.asarray(found.outputs[MASK_PROTOTYPES][0], np.float32)
        coefficients = np.asarray(found.outputs[MASK_COEFFICIENTS][0][:, found.anchor], np.float32)
        logits, lattices = [], []
        for box, weights in zip(found.detections.xyxy, coefficients.T, strict=True):
            lattice, rows, columns = _around(box, found.placement, prototypes.shape[1:])
            part = prototypes[:, rows, columns]
            logits.append((weights @ part.reshape(len(part), -1)).reshape(part.shape[1:]))
            lattices.append(lattice)
        picture_px = picture.shape[0], picture.shape[1]
        masks = masks_on_lattices(logits, lattices, found.detections.confidence.copy(), picture_px, options)
        watch.lap("mask_postprocess")
        return masks


def _around(box: Float32Array, placement: Placement, grid: tuple[int, ...]) -> tuple[Lattice, slice, slice]:
    """The pixels within a box, and the rows and columns of the prototypes that they are interpolated from."""
    left, top, right, bottom = (math.ceil(value) for value in box)
    columns = _cells(left, right, placement.scale_x, placement.left_px, grid[1])
    rows = _cells(top, bottom, placement.scale_y, placement.top_px, grid[0])
    return input_lattice(placement, (left, top, right, bottom), (columns.start, rows.start)), rows, columns


def _cells(first: int, last: int, scale: float, offset: int, n_cells: int) -> slice:
    """The cells that bilinear samples at the pixels from `first` to `last` (exclusive) read; one at least."""
    low = math.floor(((first + 0.5) * scale + offset) / CELL_PX - 0.5)
    high = math.floor(((last - 0.5) * scale + offset) / CELL_PX - 0.5) + 2
    start = min(max(low, 0), n_cells - 1)
    return slice(start, min(max(high, start + 1), n_cells))
