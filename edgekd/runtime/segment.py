"""Boxes and image embeddings become masks: box chunks through the decoder, then each mask at picture resolution.

Legend: n boxes; h x w low-resolution mask grid, one cell is 4 x 4 input pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.errors import InputError
from edgekd.runtime.cleanup import remove_small_regions
from edgekd.runtime.engines import Array, Engine
from edgekd.runtime.preprocess import Placement
from edgekd.types import BoolArray, Float32Array, Int32Array, Masks

CELL_PX = 4
# Cost grows linearly with boxes, so a chunk only bounds memory.
CHUNK_BOXES = 16


@dataclass(frozen=True)
class MaskOptions:
    """How logits become a mask.

    Attributes:
        threshold: logit above which a pixel belongs to the mask; 0 is a probability of one half.
        min_region_px: islands and holes smaller than this area, in picture pixels, are removed; 0 keeps everything.
    """

    threshold: float = 0.0
    min_region_px: int = 0

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            InputError: `min_region_px` is negative.
        """
        if self.min_region_px < 0:
            raise InputError(f"min_region_px is {self.min_region_px}, expected 0 or more; try --min-region-px 0")


def box_chunks(n_boxes: int, buckets: Sequence[int]) -> Iterator[tuple[slice, int]]:
    """Yield (boxes of this call, number of boxes the decoder is called with) until all boxes are served.

    With buckets the decoder was built for these numbers only, and the last call is filled up to the next one.
    """
    largest = buckets[-1] if buckets else CHUNK_BOXES
    for start in range(0, n_boxes, largest):
        n = min(largest, n_boxes - start)
        size = next(bucket for bucket in buckets if bucket >= n) if buckets else n
        yield slice(start, start + n), size


def decode_masks(
    decoder: Engine, image_embeddings: Array, boxes: Float32Array, buckets: Sequence[int]
) -> tuple[Float32Array, Float32Array]:
    """Run the decoder over all boxes.

    Args:
        decoder: inputs `image_embeddings` and `boxes`, outputs `low_res_masks` and `iou_predictions`.
        image_embeddings: (1, 256, h / 4, w / 4).
        boxes: (n, 4) float32 xyxy in input pixels.
        buckets: numbers of boxes that the decoder was built for; empty for any.

    Returns:
        Logits (n, h, w) float32 and predicted IoU (n,) float32.
    """
    low_res, iou = [], []
    for rows, size in box_chunks(len(boxes), buckets):
        chunk = boxes[rows]
        n = len(chunk)
        if size > n:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - n, 0)])
        feeds: dict[str, Array] = {
            "image_embeddings": image_embeddings,
            "boxes": np.ascontiguousarray(chunk, np.float32),
        }
        outputs = decoder.infer(feeds)
        low_res.append(outputs["low_res_masks"][:n].astype(np.float32))
        iou.append(outputs["iou_predictions"][:n].astype(np.float32))
    return np.concatenate(low_res), np.concatenate(iou)


def masks_from_logits(low_res: Float32Array, iou: Float32Array, placement: Placement, options: MaskOptions) -> Masks:
    """Bring every mask to the resolution of the picture, each within the window where it can be positive.

    Args:
        low_res: (n, h, w) float32 logits on the grid of the padded input.
        iou: (n,) float32.
        placement: of the picture in the segmenter's input.
        options: threshold and clean-up.
    """
    windows = np.zeros((len(low_res), 4), np.int32)
    crops = []
    for index, logits in enumerate(low_res):
        window = _positive_window(logits, placement, options.threshold)
        windows[index] = window
        crop = _upsample(logits, placement, window) > options.threshold
        if options.min_region_px:
            crop = remove_small_regions(crop, options.min_region_px)
        crops.append(crop)
    return Masks(placement.picture_px, windows, crops, iou)


def empty_masks(picture_px: tuple[int, int]) -> Masks:
    """Return the masks of a picture without boxes."""
    return Masks(picture_px, np.zeros((0, 4), np.int32), (), np.zeros(0, np.float32))


def _positive_window(logits: Float32Array, placement: Placement, threshold: float) -> Int32Array:
    """Left, top, right, bottom in picture pixels of the region that bilinear upsampling can make positive."""
    above: BoolArray = logits > threshold
    rows, columns = np.nonzero(above.any(1))[0], np.nonzero(above.any(0))[0]
    if not len(rows):
        return np.zeros(4, np.int32)
    height, width = placement.picture_px
    # Half a cell around a cell's centre is the cell; interpolation reaches to the next centre: one cell more.
    left, right = (columns[0] - 0.5) * CELL_PX, (columns[-1] + 1.5) * CELL_PX
    top, bottom = (rows[0] - 0.5) * CELL_PX, (rows[-1] + 1.5) * CELL_PX
    x = (np.array([left, right]) - placement.left_px) / placement.scale_x
    y = (np.array([top, bottom]) - placement.top_px) / placement.scale_y
    # Cells at the rim are replicated outwards, so a mask that touches it reaches the picture's edge.
    x0 = 0 if columns[0] == 0 else int(np.floor(x[0]))
    y0 = 0 if rows[0] == 0 else int(np.floor(y[0]))
    x1 = width if columns[-1] == logits.shape[1] - 1 else int(np.ceil(x[1]))
    y1 = height if rows[-1] == logits.shape[0] - 1 else int(np.ceil(y[1]))
    x0, x1 = np.clip([x0, x1], 0, width)
    y0, y1 = np.clip([y0, y1], 0, height)
    return np.array([x0, y0, max(x0, x1), max(y0, y1)], np.int32)


def _upsample(logits: Float32Array, placement: Placement, window: Int32Array) -> Float32Array:
    """Bilinear samples of the logits at the pixel centres of a window of the picture."""
    left, top, right, bottom = window
    if right <= left or bottom <= top:
        return np.zeros((bottom - top, right - left), np.float32)
    y = ((np.arange(top, bottom) + 0.5) * placement.scale_y + placement.top_px) / CELL_PX - 0.5
    x = ((np.arange(left, right) + 0.5) * placement.scale_x + placement.left_px) / CELL_PX - 0.5
    y0, y1, fy = _taps(y, logits.shape[0])
    x0, x1, fx = _taps(x, logits.shape[1])
    band = logits[:, x0[0] : x1[-1] + 1]
    rows = band[y0] + fy[:, None] * (band[y1] - band[y0])
    first = x0[0]
    low, high = rows[:, x0 - first], rows[:, x1 - first]
    return np.asarray(low + fx * (high - low), np.float32)


def _taps(position: np.ndarray, n_cells: int) -> tuple[np.ndarray, np.ndarray, Float32Array]:
    """Lower and upper cell and the weight of the upper one; positions beyond the rim take the rim."""
    position = np.clip(position, 0, n_cells - 1)
    low = np.minimum(position.astype(np.intp), max(n_cells - 2, 0))
    high = np.minimum(low + 1, n_cells - 1)
    return low, high, (position - low).astype(np.float32)
