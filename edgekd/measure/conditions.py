"""Conditions that a device meets and a benchmark seldom has: turned, scaled, covered, blurred, noisy, compressed.

A picture's pixels and its labels go in, both as they are under the condition come out. Geometry moves the labels with
the pixels; everything random depends on the condition and the picture's name alone, so that two bundles see the same.
The three kinds of damage follow ImageNet-C (Hendrycks and Dietterich, ICLR 2019) in what they do, with levels named by
their own units instead of a severity.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture, Segmentation
from edgekd.types import UInt8Array

PAD = (114, 114, 114)
"""Grey around a picture turned by a free angle, and over what is covered."""

Changed = tuple[UInt8Array, LabelledPicture]


@dataclass(frozen=True)
class Condition:
    """One condition: its group and name for the table, and what it does to (pixels BGR (H, W, 3), labels)."""

    group: str
    name: str
    apply: Callable[[UInt8Array, LabelledPicture], Changed]


def turned(degrees: float) -> Condition:
    """Turned about the centre on a canvas that holds all of it; an upright label becomes the box around its outline."""

    def apply(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
        height, width = pixels.shape[:2]
        matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
        cos, sin = abs(matrix[0, 0]), abs(matrix[0, 1])
        size = round(height * sin + width * cos), round(height * cos + width * sin)
        matrix[:, 2] += np.array(size) / 2 - np.array([width, height]) / 2
        return _warped(pixels, picture, matrix, size)

    return Condition("rotation", f"{degrees:g} degrees", apply)


def scaled(factor: float) -> Condition:
    """Smaller or larger by a factor."""

    def apply(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
        height, width = pixels.shape[:2]
        size = max(1, round(width * factor)), max(1, round(height * factor))
        interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        resized = np.asarray(cv2.resize(pixels, size, interpolation=interpolation), np.uint8)
        matrix = np.array([[size[0] / width, 0, 0], [0, size[1] / height, 0]])
        return resized, _moved(picture, matrix, (size[1], size[0]))

    return Condition("scale", f"x {factor:g}", apply)


def covered(share: float) -> Condition:
    """A grey rectangle over a share of every object's box, at a random place of it; labels stay whole."""

    def apply(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
        rng = _generator(f"covered {share}", picture)
        changed = pixels.copy()
        for left, top, right, bottom in picture.xyxy:
            sides = np.array([right - left, bottom - top]) * share**0.5
            x, y = np.array([left, top]) + rng.random(2) * (np.array([right - left, bottom - top]) - sides)
            corner, end = (round(float(x)), round(float(y))), (round(float(x + sides[0])), round(float(y + sides[1])))
            changed[max(corner[1], 0) : end[1], max(corner[0], 0) : end[0]] = PAD
        return changed, picture

    return Condition("occlusion", f"{100 * share:g} %", apply)


def blurred(sigma_px: float) -> Condition:
    """Gaussian blur."""

    def apply(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
        return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma_px), np.uint8), picture

    return Condition("blur", f"{sigma_px:g} px", apply)


def noisy(sigma: float) -> Condition:
    """Gaussian noise in picture values, 0..255."""

    def apply(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
        noise = _generator(f"noisy {sigma}", picture).normal(0, sigma, pixels.shape)
        return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8), picture

    return Condition("noise", f"sigma {sigma:g}", apply)


def compressed(quality: int) -> Condition:
    """Written as a JPEG of this quality, and read again."""

    def apply(pixels: UInt8Array, picture: LabelledPicture) -> Changed:
        _, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        return np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8), picture

    return Condition("JPEG", f"quality {quality}", apply)


CONDITIONS = (
    turned(90), turned(180), turned(270), turned(15), turned(45),
    scaled(0.5), scaled(0.75), scaled(1.5),
    covered(0.25), covered(0.5),
    blurred(1), blurred(2),
    noisy(10), noisy(25),
    compressed(50), compressed(20),
)  # fmt: skip


def _warped(
    pixels: UInt8Array, picture: LabelledPicture, matrix: NDArray[np.float64], size: tuple[int, int]
) -> Changed:
    # Labels have pixel centres at +0.5, OpenCV at whole numbers: the same map, half a pixel away on both sides.
    half = np.array([0.5, 0.5])
    at_centres = matrix.copy()
    at_centres[:, 2] += matrix[:, :2] @ half - half
    changed = cv2.warpAffine(pixels, at_centres, size, flags=cv2.INTER_LINEAR, borderValue=PAD)
    return np.asarray(changed, np.uint8), _moved(picture, matrix, (size[1], size[0]))


def _moved(picture: LabelledPicture, matrix: NDArray[np.float64], size_px: tuple[int, int]) -> LabelledPicture:
    """The labels under an affine map (2, 3) of picture coordinates."""
    boxes = picture.xyxy.copy()
    masks: list[Segmentation | None] = []
    for index in range(len(picture)):
        rings = [cv2.transform(ring[None], matrix)[0] for ring in picture.rings(index)]
        points = np.concatenate(rings)
        boxes[index] = np.concatenate([points.min(axis=0), points.max(axis=0)])
        has_mask = picture.segmentations[index] is not None
        masks.append([ring.ravel().tolist() for ring in rings] if has_mask else None)
    height, width = size_px
    return replace(
        picture,
        size_px=size_px,
        xyxy=np.clip(boxes, 0, np.array([width, height] * 2, np.float32)).astype(np.float32),
        area_px=picture.area_px * abs(float(np.linalg.det(matrix[:, :2]))),
        segmentations=tuple(masks),
    )


def _generator(condition: str, picture: LabelledPicture) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{condition} {picture.path.name}".encode()))
