"""Mosaics for `bench_mosaic.py`: labelled pictures on one canvas; what was found there goes back to each of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.read import read_labels
from edgekd.measure import coco_metrics as coco
from edgekd.runtime.sources import read_picture
from edgekd.types import ChainResult, Detections, Masks

Place = tuple[int, int]


def validation_set(assets: Path) -> LabelledSet:
    """The validation pictures of NWPU VHR-10 and their labels."""
    split = json.loads((Path(__file__).parent.parent / "edgekd/data/splits/nwpu_seed0.json").read_text())
    return read_labels(assets / "data/nwpu_vhr10/annotations.json").only(split["validation"])


def one_scale(labels: LabelledSet, longer_px: int, folder: Path) -> LabelledSet:
    """Write every picture with one longer side, and return its labels at that size.

    The detector shrinks a picture that it gets alone by its longer side, and every tile by the side of the tile: only
    pictures whose longer side is the tile's are seen at the same scale in both.
    """
    folder.mkdir(exist_ok=True)
    scaled = []
    for number, picture in enumerate(labels.pictures):
        height, width = picture.size_px
        size_px = tuple(round(side * longer_px / max(height, width)) for side in (height, width))
        path = folder / f"{number:03d}.png"
        if not path.is_file():
            way = cv2.INTER_AREA if longer_px < max(height, width) else cv2.INTER_LINEAR
            cv2.imwrite(str(path), cv2.resize(read_picture(picture.path), size_px[::-1], interpolation=way))
        x, y = size_px[1] / width, size_px[0] / height
        scaled.append(
            replace(
                picture, path=path, size_px=size_px, xyxy=(picture.xyxy * [x, y, x, y]).astype(np.float32),
                area_px=picture.area_px * x * y, segmentations=tuple(_scaled(m, x, y) for m in picture.segmentations),
            )
        )  # fmt: skip
    return replace(labels, pictures=tuple(scaled))


def _scaled(rings: Any, x: float, y: float) -> Any:
    return [(np.array(ring).reshape(-1, 2) * [x, y]).ravel().tolist() for ring in rings]


def lay_out(labels: LabelledSet, side_px: int) -> tuple[list[LabelledPicture], list[Place]]:
    """Place pictures on shelves from the top, the tallest first, each once where it fits."""
    queue = sorted(labels.pictures, key=lambda picture: -picture.size_px[0])
    pictures, places = [], []
    left = top = shelf = 0
    for picture in queue:
        height, width = picture.size_px
        if left + width > side_px:
            left, top, shelf = 0, top + shelf, 0
        if top + height <= side_px:
            pictures.append(picture)
            places.append((left, top))
            left, shelf = left + width, max(shelf, height)
    return pictures, places


def write_mosaic(path: Path, pictures: list[LabelledPicture], places: list[Place], side_px: int) -> None:
    import rasterio

    canvas = np.full((side_px, side_px, 3), 114, np.uint8)
    for picture, (left, top) in zip(pictures, places, strict=True):
        height, width = picture.size_px
        canvas[top : top + height, left : left + width] = read_picture(picture.path)
    with rasterio.open(
        path, "w", driver="GTiff", width=side_px, height=side_px, count=3, dtype="uint8", photometric="rgb",
        compress="deflate", tiled=True, blockxsize=512, blockysize=512, crs="EPSG:32650",
        transform=rasterio.Affine(0.5, 0, 300_000, 0, -0.5, 3_500_000),
    ) as file:  # fmt: skip
        file.write(canvas[:, :, ::-1].transpose(2, 0, 1))


def apart(
    result: ChainResult, pictures: list[LabelledPicture], places: list[Place]
) -> list[tuple[Detections, Masks | None]]:
    """Give each object to the picture that holds its centre, in that picture's pixels."""
    found = result.detections
    centre = (found.xyxy[:, :2] + found.xyxy[:, 2:]) / 2
    parts = []
    for picture, (left, top) in zip(pictures, places, strict=True):
        height, width = picture.size_px
        rows = np.flatnonzero(((centre >= [left, top]) & (centre < [left + width, top + height])).all(1))
        offset, limit = np.array([left, top] * 2), np.array([width, height] * 2)
        xyxy = np.clip(found.xyxy[rows] - offset, 0, limit).astype(np.float32)
        windows, crops = [], []
        for row in rows:
            window = result.masks.windows[row] - offset
            x, y, right, bottom = np.clip(window, 0, limit)
            crop = result.masks.crops[row]
            crops.append(crop[y - window[1] : bottom - window[1], x - window[0] : right - window[0]])
            windows.append((x, y, right, bottom))
        masks = Masks(
            (height, width), np.array(windows, np.int32).reshape(-1, 4), crops, np.ones(len(rows), np.float32)
        )
        parts.append((Detections(xyxy, found.confidence[rows], found.class_id[rows]), masks))
    return parts


def coco_results(parts: list[tuple[Detections, Masks | None]], with_masks: bool) -> list[dict[str, Any]]:
    results = []
    for image_id, (found, masks) in enumerate(parts, 1):
        encoded = coco.encode_masks(masks) if with_masks and masks is not None else None
        for index in range(min(len(found), coco.MAX_BOXES)):
            left, top, right, bottom = (float(value) for value in found.xyxy[index])
            shape = {"segmentation": encoded[index]} if encoded else {"bbox": [left, top, right - left, bottom - top]}
            results.append(
                {
                    "image_id": image_id,
                    "category_id": int(found.class_id[index]),
                    "score": float(found.confidence[index]),
                    **shape,
                }
            )
    return results
