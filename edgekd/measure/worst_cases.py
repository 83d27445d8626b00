"""The pictures on which a bundle does worst, side by side: labels left, what the bundle finds right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.read import read_pixels
from edgekd.errors import InputError
from edgekd.files import write_bytes
from edgekd.measure.accuracy import AccuracyReport, PictureScore, worst_pictures
from edgekd.runtime.chain import Chain
from edgekd.runtime.results.draw import overlay
from edgekd.types import UInt8Array

TILE_PX = 480
N_SHOWN = 8
_CAPTION_PX = 28


def write_worst_cases(path: Path, bundle: Path, labels: LabelledSet, report: AccuracyReport) -> None:
    """Write the grid of the `N_SHOWN` worst pictures of a report as .jpg or .png.

    Raises:
        InputError: the path has another suffix.
    """
    if path.suffix.lower() not in (".jpg", ".jpeg", ".png"):
        raise InputError(f"grid is {path}, expected a .jpg or .png file")
    with Chain.open(bundle) as chain:
        picture = worst_case_grid(chain, labels, worst_pictures(report.pictures, N_SHOWN))
    write_bytes(path, cv2.imencode(path.suffix, picture)[1].tobytes())


def worst_case_grid(chain: Chain, labels: LabelledSet, scores: Sequence[PictureScore]) -> UInt8Array:
    """Draw one row per picture: its labels, then the chain's boxes and masks, with the scores as caption.

    Args:
        chain: a whole chain, detector and segmenter.
        labels: the set that was measured.
        scores: the pictures to show, from `worst_pictures`.

    Returns:
        (rows * (TILE_PX + caption), 2 * TILE_PX, 3) uint8 BGR.
    """
    by_name = {picture.path.name: picture for picture in labels.pictures}
    rows = [_row(chain, by_name[score.name], score) for score in scores]
    return np.asarray(np.concatenate(rows), np.uint8)


def _row(chain: Chain, picture: LabelledPicture, score: PictureScore) -> UInt8Array:
    pixels = read_pixels(picture)
    labelled = pixels.copy()
    width_px = max(1, round(max(pixels.shape[:2]) / 400))
    for index in range(len(picture)):
        left, top, right, bottom = (round(float(value)) for value in picture.xyxy[index])
        cv2.rectangle(labelled, (left, top), (right, bottom), (0, 220, 0), width_px, cv2.LINE_AA)
        if picture.segmentations[index] is not None:
            rings = [np.round(ring - 0.5).astype(np.int32) for ring in picture.rings(index)]
            cv2.polylines(labelled, rings, True, (0, 255, 255), width_px, cv2.LINE_AA)
    tiles = np.concatenate([_tile(labelled), _tile(overlay(pixels, chain(pixels)))], 1)
    caption = np.zeros((_CAPTION_PX, tiles.shape[1], 3), np.uint8)
    parts = [("box F1", score.box_f1), ("mask IoU", score.miou)]
    text = ", ".join(f"{name} {value:.2f}" for name, value in parts if value is not None)
    line = f"{score.name}: {score.n_objects} objects, {text}"
    cv2.putText(caption, line, (6, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(np.concatenate([caption, tiles]), np.uint8)


def _tile(picture: UInt8Array) -> UInt8Array:
    scale = TILE_PX / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    resized = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    tile = np.full((TILE_PX, TILE_PX, 3), 40, np.uint8)
    tile[: size[1], : size[0]] = resized
    return tile
