"""Labelled pictures are cut into training crops and whole frames.

In: `LabelledPicture`s with masks. Out: `Crop`s: a normalised picture, one mask per object, tight boxes, and the frame
that keeps positional codes the same in a crop as in the whole picture. Pixels come from the runtime's own decoder.
Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture, Ring, draw_mask
from edgekd.data.read import read_pixels
from edgekd.errors import TrainingError
from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD
from edgekd.models.tinyvit import SIDE_MULTIPLE_PX

MIN_OBJECT_PX = 12
"""Objects with fewer pixels left inside a crop teach nothing and are dropped from it."""
_TRIES = 50


@dataclass(frozen=True)
class Crop:
    """A training input: everything is in the pixels of `image`."""

    image: NDArray[np.float32]  # (3, H, W) normalised RGB
    masks: NDArray[np.uint8]  # (n, H, W), 0 or 1
    boxes: NDArray[np.float32]  # (n, 4) xyxy, tight
    frame_px: float
    origin_px: tuple[float, float]  # x, y of the crop in its frame
    class_names: tuple[str, ...]  # of each mask


@dataclass(frozen=True)
class CropRecipe:
    """How crops are drawn.

    Attributes:
        side_px: side of the square crop, a multiple of 32; 224 and 448 fill TinyViT's windows without padding.
        frames_px: longer side that the picture is scaled to before the crop, with the probability of each.
        scale_jitter: lowest and highest extra factor on that scale.
        max_objects: objects kept in a crop, drawn without replacement.
        free_rotation: probability of an arbitrary angle instead of a multiple of 90 degrees; aerial pictures have
            no upright.
        colour_jitter: strength of brightness, contrast and white balance; colour_drop: probability of grey.
    """

    side_px: int = 224
    frames_px: tuple[tuple[int, float], ...] = ((1024, 0.7), (512, 0.3))
    scale_jitter: tuple[float, float] = (0.65, 1.5)
    max_objects: int = 64
    free_rotation: float = 0.3
    colour_jitter: float = 0.25
    colour_drop: float = 0.1


def normalise(bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 BGR to (3, H, W) float32 normalised RGB."""
    scaled = (bgr[:, :, ::-1] - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def tight_box(mask: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """xyxy edges of the pixels that are set; the mask must not be empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def whole_frame(sample: LabelledPicture, long_side_px: int, multiple_px: int = SIDE_MULTIPLE_PX) -> Crop:
    """The whole picture, its longer side scaled to `long_side_px`, padded right and below to multiples of a length."""
    bgr = read_pixels(sample)
    height, width = bgr.shape[:2]
    scale = long_side_px / max(height, width)
    new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = normalise(np.asarray(cv2.resize(bgr, (new_w, new_h), interpolation=how), np.uint8))
    pad_h, pad_w = -new_h % multiple_px, -new_w % multiple_px
    image = np.pad(image, ((0, 0), (0, pad_h), (0, pad_w)))
    factor = np.array([new_w / width, new_h / height], np.float32)
    objects = [
        (sample.name_of(i), draw_mask([ring * factor for ring in sample.rings(i)], image.shape[1:]))
        for i in range(len(sample))
    ]
    return _crop(image, objects, float(max(image.shape[1:])), (0.0, 0.0))


def draw_crop(sample: LabelledPicture, recipe: CropRecipe, rng: np.random.Generator) -> Crop | None:
    """A random square crop around one of the sample's objects, or None when none of it is left inside."""
    bgr = read_pixels(sample)
    frames, weights = zip(*recipe.frames_px, strict=True)
    frame_px = float(rng.choice(frames, p=weights))
    scale = frame_px / max(bgr.shape[:2]) * math.exp(rng.uniform(*np.log(recipe.scale_jitter)))
    matrix = _placement(sample, scale, recipe, rng)
    side = recipe.side_px
    warped = cv2.warpAffine(
        bgr, _at_centres(matrix), (side, side), flags=cv2.INTER_LINEAR, borderValue=PIXEL_MEAN[::-1]
    )
    image = _recolour(np.asarray(warped, np.float32), recipe, rng)
    masks = [
        (sample.name_of(i), draw_mask([_apply(matrix, ring) for ring in sample.rings(i)], (side, side)))
        for i in rng.permutation(len(sample))
    ]
    kept = [(name, mask) for name, mask in masks if int(mask.sum()) >= MIN_OBJECT_PX][: recipe.max_objects]
    if not kept:
        return None
    free_px = max(frame_px - side, 0.0)
    return _crop(image, kept, max(frame_px, side), (rng.uniform(0, free_px), rng.uniform(0, free_px)))


def _crop(
    image: NDArray[np.float32],
    objects: Sequence[tuple[str, NDArray[np.uint8]]],
    frame_px: float,
    origin_px: tuple[float, float],
) -> Crop:
    kept = [(name, mask) for name, mask in objects if mask.any()]
    boxes = np.array([tight_box(mask) for _, mask in kept], np.float32).reshape(-1, 4)
    masks = np.stack([mask for _, mask in kept]) if kept else np.zeros((0, *image.shape[1:]), np.uint8)
    return Crop(image, masks, boxes, frame_px, origin_px, tuple(name for name, _ in kept))


def _placement(
    sample: LabelledPicture, scale: float, recipe: CropRecipe, rng: np.random.Generator
) -> NDArray[np.float32]:
    """2x3 matrix from picture to crop: scale, rotation, mirror, and one object put at a random place inside."""
    free = rng.random() < recipe.free_rotation
    angle = rng.uniform(0, 2 * math.pi) if free else rng.integers(4) * math.pi / 2
    mirror = rng.choice([-1.0, 1.0])
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    points = np.concatenate(sample.rings(int(rng.integers(len(sample)))))
    anchor = linear @ (points.min(axis=0) + points.max(axis=0)) / 2
    target = rng.uniform(0.2, 0.8, size=2) * recipe.side_px
    return np.column_stack([linear, target - anchor]).astype(np.float32)


def _at_centres(matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same map for OpenCV, which counts pixel centres as whole numbers; labels have them at +0.5."""
    half = np.array([0.5, 0.5], np.float32)
    return np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ half - half])


def _apply(matrix: NDArray[np.float32], ring: Ring) -> Ring:
    return np.asarray(ring @ matrix[:, :2].T + matrix[:, 2], np.float32)


def _recolour(bgr: NDArray[np.float32], recipe: CropRecipe, rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness, contrast and white balance within `colour_jitter`; sometimes grey; then `normalise`."""
    strength = recipe.colour_jitter
    gain = 1 + rng.uniform(-strength, strength) + rng.uniform(-strength, strength, size=3) / 3
    centre = bgr.mean()
    bgr = (bgr - centre) * gain + centre * (1 + rng.uniform(-strength, strength))
    if rng.random() < recipe.colour_drop:
        bgr = np.repeat(bgr.mean(axis=2, keepdims=True), 3, axis=2)
    return normalise(np.clip(bgr, 0, 255).astype(np.uint8))


def draw_crops(samples: Sequence[LabelledPicture], recipe: CropRecipe, n: int, rng: np.random.Generator) -> list[Crop]:
    """n crops with at least one object each; pictures with more objects are drawn more often (square root)."""
    shares = np.sqrt([len(s) for s in samples])
    shares /= shares.sum()
    crops: list[Crop] = []
    for _ in range(_TRIES * n):
        crop = draw_crop(samples[rng.choice(len(samples), p=shares)], recipe, rng)
        if crop is not None:
            crops.append(crop)
        if len(crops) == n:
            return crops
    raise TrainingError(
        f"{_TRIES * n} crops of {recipe.side_px} px held no object; the polygons are too small, or raise `imgsz`"
    )


def some_objects(crop: Crop, n: int, rng: np.random.Generator) -> Crop:
    """The same crop with at most n of its objects, drawn at random."""
    chosen = rng.permutation(len(crop.masks))[:n]
    names = tuple(crop.class_names[i] for i in chosen)
    return replace(crop, masks=crop.masks[chosen], boxes=crop.boxes[chosen], class_names=names)
