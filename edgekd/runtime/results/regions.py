"""Masks as other programs write them: COCO run lengths, and polygons along the edges of pixels, holes kept.

Boolean masks go in; JSON-ready values come out. A polygon has exactly the area of its mask.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.types import BoolArray, Masks

Json = dict[str, Any]
Point = tuple[int, int]
Ring = list[list[float]]
"""[x, y] corners; the first is repeated at the end."""


def coco_rle(mask: BoolArray) -> Json:
    """Encode a (H, W) mask as COCO does: column-major run lengths in its 6-bit text form."""
    flat = mask.ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    if flat.size and flat[0]:
        runs.insert(0, 0)
    return {"size": [int(mask.shape[0]), int(mask.shape[1])], "counts": _rle_text(runs)}


def mask_rle(masks: Masks, index: int) -> Json:
    """Encode one mask as `coco_rle(masks.full(index))` does, from its crop alone: the cost follows the object."""
    height, width = masks.size_px
    left, top = (int(value) for value in masks.windows[index][:2])
    # Changes along the columns of the crop, a background pixel above and below each; transposed to column-major order.
    edges = np.diff(np.pad(masks.crops[index], ((1, 1), (0, 0))).astype(np.int8), axis=0).T
    columns, rows = np.nonzero(edges)
    positions = (left + columns) * height + top + rows
    # A run that ends at the foot of a column and goes on at the head of the next is one.
    joined = np.flatnonzero(positions[1:-1:2] == positions[2::2]) * 2 + 1
    positions = np.delete(positions, np.concatenate([joined, joined + 1]))
    runs = np.diff(np.concatenate([[0], positions, [height * width]])).tolist()
    if len(positions) and runs[-1] == 0:
        runs.pop()
    return {"size": [height, width], "counts": _rle_text(runs)}


def _rle_text(runs: Sequence[int]) -> str:
    """COCO's text form: each run as the difference to the run two before, in groups of 5 bits plus a continue bit."""
    text = []
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append(chr((bits | 0x20 if more else bits) + 48))
            if not more:
                break
    return "".join(text)


def polygons(mask: BoolArray, offset: tuple[int, int] = (0, 0)) -> list[list[Ring]]:
    """Return the parts of a mask: each a list of rings along pixel edges, the outer one first, then its holes.

    Pixels that touch in a corner alone are different parts. Outer rings run clockwise as a picture shows them, holes
    the other way; no ring touches itself.

    Args:
        mask: (h, w) bool.
        offset: (x, y) of its first pixel, added to every corner.
    """
    if not mask.any():
        return []
    _, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    outer: dict[int, Ring] = {}
    holes: dict[int, list[Ring]] = defaultdict(list)
    for corners, part in _loops(mask, labels):
        ring: Ring = [[float(x + offset[0]), float(y + offset[1])] for x, y in [*corners, corners[0]]]
        if _twice_area(corners) > 0:
            outer[part] = ring
        else:
            holes[part].append(ring)
    return [[outer[part], *holes[part]] for part in sorted(outer)]


def one_ring(parts: Sequence[Sequence[Ring]]) -> Ring:
    """Join all rings of a mask into one by bridges without width, for formats that know one outline per object.

    Args:
        parts: from `polygons`, at least one.
    """
    rings = [ring for part in parts for ring in part]
    joined = rings[0][:-1]
    for ring in rings[1:]:
        points, more = np.array(joined), np.array(ring[:-1])
        at, start = divmod(int(((points[:, None] - more[None]) ** 2).sum(-1).argmin()), len(more))
        turned = ring[start:-1] + ring[:start]
        joined = [*joined[: at + 1], *turned, turned[0], *joined[at:]]
    return [*joined, joined[0]]


def _twice_area(corners: Sequence[Point]) -> int:
    xy = np.array(corners, np.int64)
    following = np.roll(xy, -1, 0)
    return int((xy[:, 0] * following[:, 1] - following[:, 0] * xy[:, 1]).sum())


def _loops(mask: BoolArray, labels: NDArray[np.int32]) -> list[tuple[list[Point], int]]:
    """Follow the straight pieces of the boundary, the mask on the right hand; corners and the part of each loop."""
    padded = np.pad(mask, 1)
    pieces = _pieces(padded[1:] & ~padded[:-1], padded[:-1] & ~padded[1:])
    # The rows of the transposed mask are columns.
    pieces += [((x, y0), (x, y1)) for (y0, x), (y1, _) in _pieces(*_sides(padded))]
    leaving: dict[Point, list[Point]] = defaultdict(list)
    for start, end in pieces:
        leaving[start].append(end)
    walks = []
    while leaving:
        walks.append(_walk(leaving))
    return [(corners, _part_of(corners, labels)) for walk in walks for corners in _simple(walk)]


def _sides(padded: BoolArray) -> tuple[BoolArray, BoolArray]:
    """Right and left sides of the mask, transposed: going down along right sides, going up along left ones."""
    turned = padded.T
    return turned[:-1] & ~turned[1:], turned[1:] & ~turned[:-1]


def _pieces(forward: BoolArray, backward: BoolArray) -> list[tuple[Point, Point]]:
    """Runs of set cells per row as (start, end): (x, y) corners in the unpadded grid, backward runs turned round."""
    pieces = []
    for cells, is_forward in ((forward, True), (backward, False)):
        steps = np.diff(np.pad(cells, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        rows, lefts = np.nonzero(steps == 1)
        _, rights = np.nonzero(steps == -1)
        for row, left, right in zip(rows.tolist(), lefts.tolist(), rights.tolist(), strict=True):
            ends = (left - 1, row), (right - 1, row)
            pieces.append(ends if is_forward else ends[::-1])
    return pieces


def _walk(leaving: dict[Point, list[Point]]) -> list[Point]:
    """Take pieces out, one after another, until none leaves the corner that was reached."""
    at = next(iter(leaving))
    after = leaving[at][0]
    corners = []
    while True:
        corners.append(at)
        leaving[at].remove(after)
        if not leaving[at]:
            del leaving[at]
        before, at = at, after
        choices = leaving.get(at)
        if not choices:
            return corners
        # Where two pixels touch in a corner, the right turn stays with the same pixel.
        after = next((choice for choice in choices if _turns_right(before, at, choice)), choices[0])


def _turns_right(before: Point, at: Point, after: Point) -> bool:
    cross = (at[0] - before[0]) * (after[1] - at[1]) - (at[1] - before[1]) * (after[0] - at[0])
    return cross > 0


def _simple(corners: list[Point]) -> list[list[Point]]:
    """Cut a walk that comes twice to a corner into loops that do not."""
    loops: list[list[Point]] = []
    path: list[Point] = []
    place: dict[Point, int] = {}
    for corner in corners:
        if corner in place:
            first = place[corner]
            loops.append(path[first:])
            for gone in path[first:]:
                del place[gone]
            del path[first:]
        place[corner] = len(path)
        path.append(corner)
    loops.append(path)
    return loops


def _part_of(corners: Sequence[Point], labels: NDArray[np.int32]) -> int:
    """The component on the right hand of the loop's first piece."""
    (x, y), (to_x, to_y) = corners[0], corners[1]
    if y == to_y:
        row, column = (y, x) if to_x > x else (y - 1, x - 1)
    else:
        row, column = (y, x - 1) if to_y > y else (y - 1, x)
    return int(labels[row, column])
