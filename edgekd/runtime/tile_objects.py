"""What a tile found, in pixels of the whole picture: pieces become one object, several views of one object too."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgekd.runtime.oriented import enclosing, turned_around
from edgekd.runtime.tiles import Window
from edgekd.types import BoolArray, Detections, Float32Array, Int32Array, Masks

EDGE_PX = 3.0
"""A box that ends this near to an inner edge of its tile is cut by it: the regression of a box is not exact."""

WHOLE_OVER_PIECE = 2.0
"""A whole object leads over a piece that is up to this many times as confident."""


@dataclass(frozen=True)
class TileObject:
    """One object of one tile, in pixels of the picture; `crop` is None when only boxes are asked for."""

    xyxy: Float32Array
    confidence: float
    class_id: int
    cut: bool
    tile: Window
    window: Int32Array
    crop: BoolArray | None
    predicted_iou: float
    corners: Float32Array | None = None

    @property
    def rank(self) -> float:
        """Order in which objects claim others."""
        return self.confidence / (WHOLE_OVER_PIECE if self.cut else 1.0)


def is_cut(xyxy: Float32Array, tile: Window, size_px: tuple[int, int]) -> BoolArray:
    """Return which boxes touch an edge of their tile that is not an edge of the picture: (n,) bool.

    Args:
        xyxy: (n, 4) in pixels of the picture.
        tile: the window in which they were found.
        size_px: (height, width) of the picture.
    """
    left, top, right, bottom = tile
    height, width = size_px
    cut = np.zeros(len(xyxy), np.bool_)
    if left > 0:
        cut |= xyxy[:, 0] <= left + EDGE_PX
    if top > 0:
        cut |= xyxy[:, 1] <= top + EDGE_PX
    if right < width:
        cut |= xyxy[:, 2] >= right - EDGE_PX
    if bottom < height:
        cut |= xyxy[:, 3] >= bottom - EDGE_PX
    return cut


def objects_of_tile(
    tile: Window, size_px: tuple[int, int], detections: Detections, masks: Masks | None
) -> list[TileObject]:
    """Return what one tile found; arguments as for `Seams.add`."""
    left, top = tile[:2]
    offset = np.array([left, top, left, top])
    xyxy = (detections.xyxy + offset.astype(np.float32)).astype(np.float32)
    cut = is_cut(xyxy, tile, size_px)
    windows = masks.windows + offset.astype(np.int32) if masks else np.zeros((len(xyxy), 4), np.int32)
    corners = None if detections.corners is None else detections.corners + offset[:2].astype(np.float32)
    return [
        TileObject(
            xyxy[i],
            float(detections.confidence[i]),
            int(detections.class_id[i]),
            bool(cut[i]),
            tile,
            windows[i],
            masks.crops[i] if masks else None,
            float(masks.predicted_iou[i]) if masks else 0.0,
            None if corners is None else corners[i],
        )
        for i in range(len(xyxy))
    ]


def unite(pieces: list[TileObject]) -> TileObject:
    """Return the object of which these are the pieces, with the class and confidence of the most confident one."""
    lead = max(pieces, key=lambda found: found.confidence)
    if len(pieces) == 1:
        return lead
    boxes = np.stack([found.xyxy for found in pieces])
    xyxy = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])
    corners = None
    if lead.corners is not None:
        corners = turned_around(lead.corners, [found.corners for found in pieces if found.corners is not None])
    if lead.crop is None:
        return TileObject(
            xyxy, lead.confidence, lead.class_id, True, lead.tile, lead.window, None, lead.predicted_iou, corners
        )
    filled = [found for found in pieces if found.crop is not None and found.crop.size] or [lead]
    windows = np.stack([found.window for found in filled])
    left, top = (int(value) for value in windows[:, :2].min(0))
    right, bottom = (int(value) for value in windows[:, 2:].max(0))
    crop = np.zeros((bottom - top, right - left), np.bool_)
    areas = []
    for found in filled:
        assert found.crop is not None
        x, y = int(found.window[0]) - left, int(found.window[1]) - top
        crop[y : y + found.crop.shape[0], x : x + found.crop.shape[1]] |= found.crop
        areas.append(float(found.crop.sum()) + 1e-9)
    predicted = float(np.average([found.predicted_iou for found in filled], weights=areas))
    window = np.array([left, top, right, bottom], np.int32)
    return TileObject(xyxy, lead.confidence, lead.class_id, True, lead.tile, window, crop, predicted, corners)


def fuse_views(lead: TileObject, others: list[TileObject]) -> TileObject:
    """Return an object of which several tiles have a whole view: the box is their mean, weighted by confidence.

    An end of a box that one view puts far off is drawn back by the others: 0.1 points of AP on mosaics of training
    pictures. An unweighted mean costs 2.6 points: views of little confidence are wrong too often. The mask, the
    confidence and the corners of a turned box are the leader's.
    """
    if not others or lead.corners is not None:
        return lead
    views = [lead, *others]
    boxes = np.stack([found.xyxy for found in views]).astype(np.float64)
    mean = np.average(boxes, axis=0, weights=[found.confidence for found in views])
    return replace(lead, xyxy=mean.astype(np.float32))


def assemble(objects: list[TileObject], size_px: tuple[int, int]) -> tuple[Detections, Masks | None]:
    """Return objects as boxes and masks, in their order; no masks where one object has none."""
    xyxy = np.array([found.xyxy for found in objects], np.float32).reshape(-1, 4)
    turned = [found.corners for found in objects if found.corners is not None]
    if turned:
        xyxy = enclosing(np.stack(turned)).clip(0, np.array([*size_px[::-1]] * 2, np.float32))
    detections = Detections(
        xyxy,
        np.array([found.confidence for found in objects], np.float32),
        np.array([found.class_id for found in objects], np.int32),
        np.stack(turned) if turned else None,
    )
    crops = [found.crop for found in objects if found.crop is not None]
    if len(crops) != len(objects):
        return detections, None
    windows = np.array([found.window for found in objects], np.int32).reshape(-1, 4)
    return detections, Masks(size_px, windows, crops, np.array([f.predicted_iou for f in objects], np.float32))
