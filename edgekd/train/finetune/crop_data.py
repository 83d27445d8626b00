"""Objects become training crops: picture, mask and box of each in; jittered, turned, recoloured crops out.

In: `LabelledPicture`s whose objects have masks, drawn by people or by a teacher. Out: `CropBatch`es of (n, S, S, 3)
uint8 RGB and soft masks (n, S, S). A mask is drawn once on the pixel grid of its picture, where it is scored later, and
moved into the crop together with the picture, so that no half pixel is lost on small objects. Everything random comes
from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture
from edgekd.data.read import read_pixels
from edgekd.errors import DataError
from edgekd.models.crop_segmenter import PAD, WINDOW_FACTOR
from edgekd.train.finetune.crops import tight_box

_LEVELS = 3
"""Full, half and quarter size: large objects shrink by averaging areas, as the runtime does."""
_ALIGN_PX = 1 << (_LEVELS - 1)
MAX_BYTES_HELD = 4 << 30
MIN_AREA_PX = 8

Pyramid = tuple[NDArray[np.uint8], ...]


@dataclass(frozen=True)
class CropObject:
    """One labelled object.

    Attributes:
        picture: returns the RGB pyramid of its picture.
        masks: pyramid of the mask, 0 to 255, of a window that starts at `origin_px`.
        origin_px: x, y of that window in the picture, multiples of 4.
        box: (4,) tight xyxy of the mask.
        outline: (k, 2) corners of the convex hull of its pixels, x, y.
        weight: share of its loss; 1 for labels, the predicted IoU for masks of a teacher.
    """

    picture: Callable[[], Pyramid]
    masks: Pyramid
    origin_px: tuple[int, int]
    box: NDArray[np.float64]
    outline: NDArray[np.float64]
    class_name: str
    weight: float = 1.0


@dataclass(frozen=True)
class Augmentation:
    """How a crop differs from its object.

    Attributes:
        free_rotation: probability of any angle instead of a multiple of 90 degrees.
        box_jitter: standard deviation of each edge as a share of the side; jittered_share: how often edges move.
        turned: crops are turned with the smallest box around their object, as those of an oriented detector are, by a
            random number of quarter turns more; turn_jitter: standard deviation of the angle in radians.
        contrast, brightness, tint: largest relative change; grey_share, noise_share: how often.
    """

    free_rotation: float = 0.5
    box_jitter: float = 0.06
    jittered_share: float = 0.6
    contrast: float = 0.3
    brightness: float = 0.2
    tint: float = 0.08
    grey_share: float = 0.1
    noise_share: float = 0.1
    turned: bool = False
    turn_jitter: float = 0.05


@dataclass(frozen=True)
class CropBatch:
    """Inputs and targets of a step: (n, S, S, 3) uint8, (n, S, S) uint8 0 to 255, (n,) float32."""

    crops: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    weights: NDArray[np.float32]


class PictureStore:
    """Decoded pictures: held in memory up to a number of bytes, decoded again beyond it."""

    def __init__(self, max_bytes: int = MAX_BYTES_HELD) -> None:
        self.max_bytes, self.n_bytes = max_bytes, 0
        self._held: dict[Path, Pyramid] = {}

    def __call__(self, sample: LabelledPicture) -> Pyramid:
        """The RGB pyramid of a picture. Raises DataError when its file cannot be used."""
        path = sample.path
        if path in self._held:
            return self._held[path]
        found = _pyramid(np.asarray(cv2.cvtColor(read_pixels(sample), cv2.COLOR_BGR2RGB), np.uint8), PAD)
        size = sum(level.nbytes for level in found)
        if self.n_bytes + size <= self.max_bytes:
            self._held[path] = found
            self.n_bytes += size
        return found


def _pyramid(full: NDArray[np.uint8], pad: int | tuple[int, int, int]) -> Pyramid:
    height, width = full.shape[:2]
    full = np.asarray(
        cv2.copyMakeBorder(full, 0, -height % _ALIGN_PX, 0, -width % _ALIGN_PX, cv2.BORDER_CONSTANT, value=pad),
        np.uint8,
    )
    height, width = full.shape[:2]
    smaller = (cv2.resize(full, (width >> k, height >> k), interpolation=cv2.INTER_AREA) for k in range(1, _LEVELS))
    return (full, *(np.asarray(level, np.uint8) for level in smaller))


def crop_objects(
    samples: Sequence[LabelledPicture], store: PictureStore, weights: Sequence[NDArray[np.float32]] | None = None
) -> list[CropObject]:
    """All objects whose mask has at least eight pixels.

    Args:
        samples: pictures whose objects all have masks.
        store: gives their pixels.
        weights: for each picture the weight of its objects; 1 where None.

    Raises:
        DataError: no object is left.
    """
    found = []
    for row, sample in enumerate(samples):
        shares = np.ones(len(sample), np.float32) if weights is None else weights[row]
        for index in range(len(sample)):
            mask = sample.mask(index)
            if int(mask.sum()) >= MIN_AREA_PX:
                found.append(crop_object(partial(store, sample), mask, sample.name_of(index), float(shares[index])))
    if not found:
        raise DataError(f"no object has a mask of at least {MIN_AREA_PX} pixels; give pictures with polygons")
    return found


def crop_object(picture: Callable[[], Pyramid], mask: NDArray[np.uint8], class_name: str, weight: float) -> CropObject:
    """One object from its mask (H, W), 0 or 1, which must not be empty."""
    x1, y1, x2, y2 = (int(edge) for edge in tight_box(mask))
    left, top = (x1 - 2) // _ALIGN_PX * _ALIGN_PX, (y1 - 2) // _ALIGN_PX * _ALIGN_PX
    part = np.zeros((y2 + 2 - top, x2 + 2 - left), np.uint8)
    part[y1 - top : y2 - top, x1 - left : x2 - left] = mask[y1:y2, x1:x2] * 255
    rows, columns = np.nonzero(mask[y1:y2, x1:x2])
    corners = np.stack([columns + x1, rows + y1], axis=1).astype(np.int32)
    hull = cv2.convexHull(corners)[:, 0].astype(np.float64)
    outline = np.concatenate([hull + offset for offset in ((0, 0), (1, 0), (0, 1), (1, 1))])
    box = np.array([x1, y1, x2, y2], np.float64)
    return CropObject(picture, _pyramid(part, 0), (left, top), box, outline, class_name, weight)


def draw_batch(
    objects: Sequence[CropObject], side_px: int, n: int, rng: np.random.Generator, how: Augmentation
) -> CropBatch:
    """A batch of n different objects, or of all of them where there are fewer."""
    chosen = [objects[i] for i in rng.choice(len(objects), min(n, len(objects)), replace=False)]
    pairs = [_draw(item, side_px, rng, how) for item in chosen]
    weights = np.array([item.weight for item in chosen], np.float32)
    return CropBatch(np.stack([crop for crop, _ in pairs]), np.stack([mask for _, mask in pairs]), weights)


def _draw(
    item: CropObject, side_px: int, rng: np.random.Generator, how: Augmentation
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One crop (S, S, 3) and its mask (S, S), 0 to 255."""
    turn = _turn(item, rng, how)
    turned = item.outline @ turn.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    if rng.random() < how.jittered_share:
        sides = high - low
        low = low + rng.normal(0, how.box_jitter, 2) * sides
        high = np.maximum(high + rng.normal(0, how.box_jitter, 2) * sides, low + 1)
    scale = side_px / ((high - low) * WINDOW_FACTOR)
    linear = scale[:, None] * turn
    offset = side_px / 2 - scale * (low + high) / 2
    level = int(np.clip(np.floor(np.log2(1 / scale.max()) + 0.4), 0, _LEVELS - 1))
    size = (side_px, side_px)
    crop = cv2.warpAffine(
        item.picture()[level], _at_level(linear, offset, level, (0, 0)), size,
        flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=PAD,
    )  # fmt: skip
    mask = cv2.warpAffine(item.masks[level], _at_level(linear, offset, level, item.origin_px), size)
    return _recolour(np.asarray(crop, np.uint8), rng, how), np.asarray(mask, np.uint8)


def _turn(item: CropObject, rng: np.random.Generator, how: Augmentation) -> NDArray[np.float64]:
    """Rotation and mirror, 2 x 2."""
    free = not how.turned and rng.random() < how.free_rotation
    angle = rng.uniform(0, 2 * np.pi) if free else rng.integers(4) * np.pi / 2
    mirror = rng.choice([-1.0, 1.0])
    if how.turned:
        mirrored = (item.outline * (mirror, 1)).astype(np.float32)
        angle += rng.normal(0, how.turn_jitter) - np.deg2rad(cv2.minAreaRect(mirrored)[2])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos * mirror, -sin], [sin * mirror, cos]])


def _at_level(
    linear: NDArray[np.float64], offset: NDArray[np.float64], level: int, origin_px: tuple[int, int]
) -> NDArray[np.float64]:
    """The 2x3 matrix of warpAffine, which counts pixel centres as whole numbers, from one in continuous pixels."""
    inside = linear @ np.array(origin_px, np.float64) + offset
    scaled = linear * (1 << level)
    return np.column_stack([scaled, inside + scaled @ np.array([0.5, 0.5]) - 0.5])


def _recolour(rgb: NDArray[np.uint8], rng: np.random.Generator, how: Augmentation) -> NDArray[np.uint8]:
    gain = 1 + rng.uniform(-how.contrast, how.contrast) + rng.uniform(-how.tint, how.tint, size=3)
    level = 1 + rng.uniform(-how.brightness, how.brightness)
    mean = float(rgb.mean())
    if rng.random() < how.grey_share:
        rgb = np.asarray(cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), np.uint8)
    table = np.clip((np.arange(256)[:, None] - mean) * gain + mean * level, 0, 255).astype(np.uint8)
    rgb = np.asarray(cv2.LUT(rgb, table[:, None, :]), np.uint8)
    if rng.random() < how.noise_share:
        noise = rng.normal(0, rng.uniform(2, 8), rgb.shape)
        rgb = np.clip(rgb + noise, 0, 255).astype(np.uint8)
    return rgb
