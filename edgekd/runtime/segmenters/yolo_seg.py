"""The kind `yolo-seg`: the detector brings prototypes for the picture and coefficients for every box.

coefficients x the prototypes around a box -> logits -> mask within the box

Masks are computed at the resolution of the picture, each for its box alone, with the steps that Ultralytics takes with
`retina_masks`: where the padding of the input does not end with a cell of 4 px, cells are first made finer, so that it
can be cut off. A tensor of the whole picture is never made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.errors import InputError
from edgekd.graphs import MASK_COEFFICIENTS, MASK_PROTOTYPES
from edgekd.runtime.detect import Found
from edgekd.runtime.engines import floats
from edgekd.runtime.preprocess import Placement
from edgekd.runtime.segment import CELL_PX, Lattice, MaskOptions, masks_on_lattices, upsample
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
        prototypes = floats(found.outputs, MASK_PROTOTYPES)[0]
        coefficients = floats(found.outputs, MASK_COEFFICIENTS)[0][:, found.anchor]
        logits, lattices = [], []
        for box, weights in zip(found.detections.xyxy, coefficients.T, strict=True):
            grid, lattice = _around(box, found.placement, prototypes, weights)
            logits.append(grid)
            lattices.append(lattice)
        picture_px = picture.shape[0], picture.shape[1]
        masks = masks_on_lattices(logits, lattices, found.detections.confidence.copy(), picture_px, options)
        watch.lap("mask_postprocess")
        return masks


@dataclass(frozen=True)
class _Axis:
    """One direction: `factor` fine cells per cell; the picture takes `n_fine` of them from `start` on."""

    factor: int
    start: int
    n_fine: int
    n_cells: int
    scale: float

    def fine(self, first_px: int, last_px: int) -> tuple[int, int]:
        """Fine cells [first, last) that samples at these pixels of the picture read; one at least."""
        per_px = self.scale * self.factor / CELL_PX
        low = math.floor((first_px + 0.5) * per_px - 0.5)
        high = math.floor((last_px - 0.5) * per_px - 0.5) + 2
        first = min(max(low, 0), self.n_fine - 1)
        return first, min(max(high, first + 1), self.n_fine)

    def cells(self, fine: tuple[int, int]) -> slice:
        """Cells of the prototypes that these fine cells are interpolated from."""
        low, high = (math.floor((self.start + cell + 0.5) / self.factor - 0.5) for cell in (fine[0], fine[1] - 1))
        return slice(max(low, 0), min(high + 2, self.n_cells))


def finer_cells(placement: Placement) -> int:
    """Return how many fine cells a cell of 4 px has per side, so that the padding ends with one: 1, 2 or 4."""
    padding = 0
    for whole, part in zip(placement.input_px, placement.resized_px, strict=True):
        padding |= (whole - part) | (whole - part) // 2
    return CELL_PX // math.gcd(CELL_PX, padding)


def _around(
    box: Float32Array, placement: Placement, prototypes: Float32Array, weights: Float32Array
) -> tuple[Float32Array, Lattice]:
    """Logits of the fine cells that the pixels within a box are interpolated from, and where they lie."""
    left, top, right, bottom = (math.ceil(value) for value in box)
    factor, (_, n_rows, n_columns) = finer_cells(placement), prototypes.shape
    (height, width), size = placement.resized_px, CELL_PX / factor
    x = _Axis(factor, round(placement.left_px / size), round(width / size), n_columns, placement.scale_x)
    y = _Axis(factor, round(placement.top_px / size), round(height / size), n_rows, placement.scale_y)
    columns, rows = x.fine(left, right), y.fine(top, bottom)
    part = prototypes[:, y.cells(rows), x.cells(columns)]
    logits = (weights @ part.reshape(len(part), -1)).reshape(part.shape[1:])
    lattice = Lattice(
        (placement.scale_x, placement.scale_y), (-columns[0] * size, -rows[0] * size), (size, size),
        (left, top, right, bottom),
    )  # fmt: skip
    if factor == 1:
        return logits, lattice
    window = (x.start + columns[0], y.start + rows[0], x.start + columns[1], y.start + rows[1])
    first = -float(x.cells(columns).start), -float(y.cells(rows).start)
    return upsample(logits, Lattice((1 / factor, 1 / factor), first, (1.0, 1.0), window), window), lattice
