"""Logits become masks: box chunks through a decoder, then each grid of logits at the resolution of the picture.

Legend: n boxes; h x w grid of logits, which covers a part of the picture that a `Lattice` describes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.graphs import LOW_RES_MASKS, PREDICTED_IOU
from edgekd.runtime.engines import Engine, Tensor, floats
from edgekd.runtime.preprocess import Placement
from edgekd.types import BoolArray, Float32Array, Int32Array, Masks

CELL_PX = 4
"""Input pixels per cell of a decoder's masks and of a detector's prototypes."""

# Cost grows linearly with boxes, so a chunk only bounds memory.
CHUNK_BOXES = 16


@dataclass(frozen=True)
class Lattice:
    """Where the cells of a grid lie: cell = ((pixel + 0.5) * scale + offset) / size - 0.5, x and y of each pair.

    `limits` is the part of the picture that a mask may cover: left, top, right, bottom in pixels, whole numbers within
    the picture, right and bottom exclusive. Pixels beyond the outermost cell centres take the outermost cells.
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[float, float]
    limits: tuple[int, int, int, int]


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
            raise InputError(f"min_region_px is {self.min_region_px}, expected 0 or more")


def box_chunks(n_boxes: int, buckets: Sequence[int], chunk: int = CHUNK_BOXES) -> Iterator[tuple[slice, int]]:
    """Yield (boxes of this call, number of boxes the network is called with) until all boxes are served.

    With buckets the network was built for these numbers only, and the last call is filled up to the next one; without
    them a call takes at most `chunk` boxes.
    """
    largest = buckets[-1] if buckets else chunk
    for start in range(0, n_boxes, largest):
        n = min(largest, n_boxes - start)
        size = next(bucket for bucket in buckets if bucket >= n) if buckets else n
        yield slice(start, start + n), size


def decode_masks(
    decoder: Engine, image_embeddings: Tensor, boxes: Float32Array, buckets: Sequence[int]
) -> tuple[Float32Array, Float32Array]:
    """Run the decoder over all boxes.

    Args:
        decoder: inputs `image_embeddings` and `boxes`, outputs `low_res_masks` and `predicted_iou`.
        image_embeddings: (1, 256, h / 4, w / 4), on the host or where the encoder left them.
        boxes: (n, 4) float32 xyxy in input pixels.
        buckets: numbers of boxes that the decoder was built for; empty for any.

    Returns:
        Logits (n, h, w) float32 and predicted IoU (n,) float32.

    Raises:
        BundleError: an output holds NaN or infinity.
    """
    low_res, iou = [], []
    for rows, size in box_chunks(len(boxes), buckets):
        chunk = boxes[rows]
        n = len(chunk)
        if size > n:
            chunk = np.concatenate([chunk, np.repeat(chunk[-1:], size - n, 0)])
        feeds: dict[str, Tensor] = {
            "image_embeddings": image_embeddings,
            "boxes": np.ascontiguousarray(chunk, np.float32),
        }
        outputs = decoder.infer(feeds)
        low_res.append(floats(outputs, LOW_RES_MASKS)[:n].copy())
        iou.append(floats(outputs, PREDICTED_IOU)[:n].copy())
    return np.concatenate(low_res), np.concatenate(iou)


def masks_from_logits(low_res: Float32Array, iou: Float32Array, placement: Placement, options: MaskOptions) -> Masks:
    """Bring every mask to the resolution of the picture, each within the window where it can be positive.

    Args:
        low_res: (n, h, w) float32 logits on the grid of the padded input.
        iou: (n,) float32.
        placement: of the picture in the segmenter's input.
        options: threshold and clean-up.
    """
    height, width = placement.picture_px
    lattice = input_lattice(placement, (0, 0, width, height))
    return masks_on_lattices(low_res, [lattice] * len(low_res), iou, placement.picture_px, options)


def input_lattice(placement: Placement, limits: tuple[int, int, int, int], first: tuple[int, int] = (0, 0)) -> Lattice:
    """Return where the 4 px cells of a network's input lie, for a grid whose first cell is `first` (column, row)."""
    offset = placement.left_px - first[0] * CELL_PX, placement.top_px - first[1] * CELL_PX
    return Lattice((placement.scale_x, placement.scale_y), offset, (float(CELL_PX), float(CELL_PX)), limits)


def masks_on_lattices(
    logits: Sequence[Float32Array] | Float32Array,
    lattices: Sequence[Lattice],
    iou: Float32Array,
    picture_px: tuple[int, int],
    options: MaskOptions,
) -> Masks:
    """Bring grids of logits to the resolution of the picture, each where its lattice says.

    Args:
        logits: n arrays (h, w) float32; sizes may differ.
        lattices: where each lies.
        iou: (n,) float32 predicted IoU.
        picture_px: (height, width).
        options: threshold and clean-up.
    """
    windows = np.zeros((len(lattices), 4), np.int32)
    crops = []
    for index, (grid, lattice) in enumerate(zip(logits, lattices, strict=True)):
        window = positive_window(grid, lattice, options.threshold)
        windows[index] = window
        crop = np.ascontiguousarray(upsample(grid, lattice, window) > options.threshold)
        crops.append(cleaned(crop, window, picture_px, options))
    return Masks(picture_px, windows, crops, iou)


def cleaned(crop: BoolArray, window: Int32Array, picture_px: tuple[int, int], options: MaskOptions) -> BoolArray:
    """Return the mask within a window of a picture of (height, width), without small islands and holes."""
    if not options.min_region_px:
        return crop
    left, top, right, bottom = (int(edge) for edge in window)
    inside = left > 0, top > 0, right < picture_px[1], bottom < picture_px[0]
    return remove_small_regions(crop, options.min_region_px, inside)


def empty_masks(picture_px: tuple[int, int], n: int = 0) -> Masks:
    """Return n masks without a pixel, for a picture of (height, width)."""
    return Masks(picture_px, np.zeros((n, 4), np.int32), (np.zeros((0, 0), np.bool_),) * n, np.zeros(n, np.float32))


def positive_window(logits: Float32Array, lattice: Lattice, threshold: float) -> Int32Array:
    """Return left, top, right, bottom in picture pixels of the region that bilinear upsampling can make positive."""
    left, top, width, height = cv2.boundingRect((logits > threshold).view(np.uint8))
    if not width:
        return np.zeros(4, np.int32)
    x0, x1 = _span(left, left + width - 1, logits.shape[1], lattice, 0)
    y0, y1 = _span(top, top + height - 1, logits.shape[0], lattice, 1)
    return np.array([x0, y0, max(x0, x1), max(y0, y1)], np.int32)


def _span(first_cell: int, last_cell: int, n_cells: int, lattice: Lattice, axis: int) -> tuple[int, int]:
    """First and last pixel (exclusive) along an axis that the positive cells can reach, within the limits."""
    low, high = lattice.limits[axis], lattice.limits[axis + 2]
    scale, offset, size = lattice.scale[axis], lattice.offset[axis], lattice.size[axis]
    # Half a cell around a cell's centre is the cell; interpolation reaches to the next centre: one cell more.
    # Cells at the rim are replicated outwards, so a mask that touches it reaches the limit.
    first = low if first_cell == 0 else math.floor(((first_cell - 0.5) * size - offset) / scale)
    last = high if last_cell == n_cells - 1 else math.ceil(((last_cell + 1.5) * size - offset) / scale)
    return min(max(first, low), high), min(max(last, low), high)


def upsample(logits: Float32Array, lattice: Lattice, window: Sequence[int] | Int32Array) -> Float32Array:
    """Return bilinear samples of the logits at the pixel centres of a window of the picture."""
    left, top, right, bottom = window
    if right <= left or bottom <= top:
        return np.zeros((bottom - top, right - left), np.float32)
    y = ((np.arange(top, bottom) + 0.5) * lattice.scale[1] + lattice.offset[1]) / lattice.size[1] - 0.5
    x = ((np.arange(left, right) + 0.5) * lattice.scale[0] + lattice.offset[0]) / lattice.size[0] - 0.5
    y0, fy = taps(y, logits.shape[0])
    x0, fx = taps(x, logits.shape[1])
    rows = _between(logits[y0[0] : y0[-1] + 2, x0[0] : x0[-1] + 2], y0 - y0[0], fy)
    return _between(np.ascontiguousarray(rows.T), x0 - x0[0], fx).T


def _between(cells: Float32Array, low: NDArray[np.intp], weight: Float32Array) -> Float32Array:
    """Rows of (h, w) between row `low` and the next one; the last row has itself as the next."""
    steps = np.zeros_like(cells)
    np.subtract(cells[1:], cells[:-1], out=steps[:-1])
    found = steps.take(low, 0)
    found *= weight[:, None]
    found += cells.take(low, 0)
    return found


def taps(position: NDArray[np.float64], n_cells: int) -> tuple[NDArray[np.intp], Float32Array]:
    """Return the lower cell and the weight of the next one; positions beyond the rim take the rim."""
    position = np.minimum(np.maximum(position, 0), n_cells - 1)
    low = np.minimum(position.astype(np.intp), max(n_cells - 2, 0))
    return low, (position - low).astype(np.float32)


Edges = tuple[bool, bool, bool, bool]
"""Something about the left, top, right and bottom edge of a crop."""

CLOSED: Edges = (False, False, False, False)


def remove_small_regions(mask: BoolArray, min_region_px: int, open_edges: Edges = CLOSED) -> BoolArray:
    """Fill holes, then drop islands, that cover less than `min_region_px` pixels.

    Regions are 8-connected, holes that touch the border count as holes, and the largest island stays even when it is
    smaller than the limit: the rules of Segment Anything's `remove_small_regions`.

    Args:
        mask: (h, w) bool, a whole picture or the part of it that an object needs.
        min_region_px: the limit, in pixels.
        open_edges: edges behind which the picture goes on. The background there is only a part of a larger one, so that
            it is not a hole, however small the part is.
    """
    if not mask.any():
        return mask
    filled = mask | _small_components(~mask, min_region_px, keep_largest=False, open_edges=open_edges)
    return np.asarray(
        filled & ~_small_components(filled, min_region_px, keep_largest=True, open_edges=CLOSED), np.bool_
    )


def _small_components(region: BoolArray, min_region_px: int, keep_largest: bool, open_edges: Edges) -> BoolArray:
    n_labels, labels, stats, _ = cv2.connectedComponentsWithStats(region.astype(np.uint8), connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    small = areas < min_region_px
    small[0] = False
    if keep_largest and n_labels > 1:
        small[1 + int(areas[1:].argmax())] = False
    rims = labels[:, 0], labels[0], labels[:, -1], labels[-1]
    for rim, is_open in zip(rims, open_edges, strict=True):
        if is_open:
            small[rim] = False
    return np.asarray(small[labels], np.bool_)
