"""Pictures with object polygons: read from COCO JSON or YOLO labels, and cut into training crops and whole frames.

In: a COCO JSON with `segmentation` polygons, or YOLO polygon files. Out: `SegmentationSample`s, then `Crop`s: a
normalised picture, one mask per object, tight boxes, and the `Frame` that keeps positional codes the same in a crop as
in the whole picture. Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError, TrainingError
from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD
from edgekd.models.tinyvit import SIDE_MULTIPLE_PX

Polygon = NDArray[np.float32]
_SUBPIXEL_BITS = 4
MIN_OBJECT_PX = 12
"""Objects with fewer pixels left inside a crop teach nothing and are dropped from it."""
_TRIES = 50


@dataclass(frozen=True)
class SegmentationObject:
    """One object: the rings of its polygon, each (n, 2) x, y picture pixels, and the name of its class."""

    polygons: tuple[Polygon, ...]
    class_name: str


@dataclass(frozen=True)
class SegmentationSample:
    """One picture on disk and its objects."""

    path: Path
    size_px: tuple[int, int]  # height, width
    objects: tuple[SegmentationObject, ...]


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


def read_coco(annotations: Path, images: Path, only: Iterable[str] | None = None) -> list[SegmentationSample]:
    """Read COCO instance polygons; `only` names the files to take.

    Raises DataError when the file is no COCO JSON, a picture is missing, an annotation points nowhere, or a polygon
    lies outside its picture. Crowd annotations (run-length masks) are left out.
    """
    data = _load_json(annotations)
    try:
        names = {c["id"]: str(c["name"]) for c in data["categories"]}
        wanted = None if only is None else set(only)
        pictures = {i["id"]: i for i in data["images"] if wanted is None or i["file_name"] in wanted}
        known_ids = {i["id"] for i in data["images"]}
        objects: dict[Any, list[SegmentationObject]] = {key: [] for key in pictures}
        for annotation in data["annotations"]:
            if annotation["image_id"] not in known_ids:
                raise DataError(
                    f"{annotations}: annotation {annotation.get('id')} names picture {annotation['image_id']}, which "
                    "the file does not list; repair the annotation file"
                )
            if annotation["image_id"] in pictures and not annotation.get("iscrowd"):
                picture = pictures[annotation["image_id"]]
                rings = _rings(annotation, (picture["height"], picture["width"]), annotations)
                objects[annotation["image_id"]].append(SegmentationObject(rings, names[annotation["category_id"]]))
    except (KeyError, TypeError) as reason:
        raise DataError(
            f"{annotations} lacks {reason} of the COCO instance format; pass a JSON with images, annotations "
            "and categories"
        ) from reason
    samples = [
        SegmentationSample(images / p["file_name"], (p["height"], p["width"]), tuple(objects[key]))
        for key, p in pictures.items()
    ]
    return _checked(samples, annotations)


def read_yolo_polygons(images: Path, labels: Path) -> list[SegmentationSample]:
    """Read YOLO segmentation labels (class x1 y1 x2 y2 ..., in 0..1); pictures without a label file are left out."""
    samples = []
    for label in sorted(labels.glob("*.txt")):
        path = next(
            (p for p in (images / f"{label.stem}{end}" for end in (".jpg", ".png", ".jpeg")) if p.is_file()), None
        )
        if path is None:
            raise DataError(f"{label} has no picture of the same name in {images}; pass the folder of its pictures")
        height, width = read_bgr(path).shape[:2]
        objects = []
        for line in label.read_text().splitlines():
            parts = line.split()
            try:
                ring = np.array(parts[1:], np.float32).reshape(-1, 2)
            except ValueError as reason:
                raise DataError(
                    f"{label} holds a line that is not 'class x y x y ...'; write YOLO polygons"
                ) from reason
            if len(ring) < 3 or ring.min() < 0 or ring.max() > 1:
                raise DataError(f"{label} holds a polygon of {len(ring)} points outside 0..1; write at least 3 in 0..1")
            objects.append(SegmentationObject((ring * np.array([width, height], np.float32),), parts[0]))
        samples.append(SegmentationSample(path, (height, width), tuple(objects)))
    return _checked(samples, labels)


def _load_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError) as reason:
        raise DataError(f"{path} is no readable JSON ({reason}); pass a COCO instance file") from reason
    if not isinstance(data, dict):
        raise DataError(
            f"{path} holds a JSON {type(data).__name__}, expected the COCO object; pass a COCO instance file"
        )
    return data


def _rings(annotation: dict[str, Any], size_px: tuple[int, int], source: Path) -> tuple[Polygon, ...]:
    rings = annotation["segmentation"]
    if not isinstance(rings, list) or not rings:
        raise DataError(
            f"{source}: annotation {annotation.get('id')} has no polygon; export instance polygons, not boxes or RLE"
        )
    polygons = []
    for ring in rings:
        points = np.asarray(ring, np.float32).reshape(-1, 2)
        # A pixel of slack: annotation tools put the far edge at width or height, half a pixel beyond the last centre.
        limit = np.array([size_px[1], size_px[0]], np.float32) + 1
        if len(points) < 3 or points.min() < -1 or (points > limit).any():
            raise DataError(
                f"{source}: annotation {annotation.get('id')} has {len(points)} points reaching outside its "
                f"{size_px[1]}x{size_px[0]} px picture; correct or remove the annotation"
            )
        polygons.append(points)
    return tuple(polygons)


def _checked(samples: Sequence[SegmentationSample], source: Path) -> list[SegmentationSample]:
    missing = [s.path for s in samples if not s.path.is_file()]
    if missing:
        raise DataError(
            f"{source} names {len(missing)} pictures that do not exist, e.g. {missing[0]}; pass their folder"
        )
    kept = [s for s in samples if s.objects]
    if not kept:
        raise DataError(f"{source} holds no object with a polygon; pass annotations with instance polygons")
    return kept


def read_bgr(path: Path) -> NDArray[np.uint8]:
    """Decode a picture to (H, W, 3) uint8 BGR. Raises DataError when it cannot be decoded."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise DataError(f"{path} cannot be decoded as a picture; replace it or remove it from the annotations")
    return np.asarray(picture, np.uint8)


def normalise(bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 BGR to (3, H, W) float32 normalised RGB."""
    scaled = (bgr[:, :, ::-1] - np.array(PIXEL_MEAN, np.float32)) / np.array(PIXEL_STD, np.float32)
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)


def draw_mask(polygons: Sequence[Polygon], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Fill polygons (x, y pixels) into a (H, W) mask of 0 and 1."""
    mask = np.zeros(size_px, np.uint8)
    factor = 1 << _SUBPIXEL_BITS
    fixed = [np.round(p * factor).astype(np.int32) for p in polygons]
    cv2.fillPoly(mask, fixed, 1, lineType=cv2.LINE_8, shift=_SUBPIXEL_BITS)
    return mask


def tight_box(mask: NDArray[np.uint8]) -> tuple[float, float, float, float]:
    """xyxy edges of the pixels that are set; the mask must not be empty."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def whole_frame(sample: SegmentationSample, long_side_px: int, multiple_px: int = SIDE_MULTIPLE_PX) -> Crop:
    """The whole picture, its longer side scaled to `long_side_px`, padded right and below to multiples of a length."""
    bgr = read_bgr(sample.path)
    height, width = bgr.shape[:2]
    scale = long_side_px / max(height, width)
    new_h, new_w = max(1, round(height * scale)), max(1, round(width * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    image = normalise(np.asarray(cv2.resize(bgr, (new_w, new_h), interpolation=how), np.uint8))
    pad_h, pad_w = -new_h % multiple_px, -new_w % multiple_px
    image = np.pad(image, ((0, 0), (0, pad_h), (0, pad_w)))
    factor = np.array([new_w / width, new_h / height], np.float32)
    masks = [draw_mask([p * factor for p in o.polygons], image.shape[1:]) for o in sample.objects]
    names = [o.class_name for o in sample.objects]
    return _crop(image, list(zip(names, masks, strict=True)), float(max(image.shape[1:])), (0.0, 0.0))


def draw_crop(sample: SegmentationSample, recipe: CropRecipe, rng: np.random.Generator) -> Crop | None:
    """A random square crop around one of the sample's objects, or None when none of it is left inside."""
    bgr = read_bgr(sample.path)
    frames, weights = zip(*recipe.frames_px, strict=True)
    frame_px = float(rng.choice(frames, p=weights))
    scale = frame_px / max(bgr.shape[:2]) * math.exp(rng.uniform(*np.log(recipe.scale_jitter)))
    matrix = _placement(sample, scale, recipe, rng)
    side = recipe.side_px
    warped = cv2.warpAffine(bgr, matrix, (side, side), flags=cv2.INTER_LINEAR, borderValue=PIXEL_MEAN[::-1])
    image = _recolour(np.asarray(warped, np.float32), recipe, rng)
    order = rng.permutation(len(sample.objects))
    chosen = [sample.objects[i] for i in order]
    masks = [(o.class_name, draw_mask([_apply(matrix, p) for p in o.polygons], (side, side))) for o in chosen]
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
    sample: SegmentationSample, scale: float, recipe: CropRecipe, rng: np.random.Generator
) -> NDArray[np.float32]:
    """2x3 matrix from picture to crop: scale, rotation, mirror, and one object put at a random place inside."""
    free = rng.random() < recipe.free_rotation
    angle = rng.uniform(0, 2 * math.pi) if free else rng.integers(4) * math.pi / 2
    mirror = rng.choice([-1.0, 1.0])
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    linear = np.array([[cos * mirror, -sin], [sin * mirror, cos]])
    points = np.concatenate(sample.objects[rng.integers(len(sample.objects))].polygons)
    anchor = linear @ (points.min(axis=0) + points.max(axis=0)) / 2
    target = rng.uniform(0.2, 0.8, size=2) * recipe.side_px
    return np.column_stack([linear, target - anchor]).astype(np.float32)


def _apply(matrix: NDArray[np.float32], polygon: Polygon) -> Polygon:
    return np.asarray(polygon @ matrix[:, :2].T + matrix[:, 2], np.float32)


def _recolour(bgr: NDArray[np.float32], recipe: CropRecipe, rng: np.random.Generator) -> NDArray[np.float32]:
    """Brightness, contrast and white balance within `colour_jitter`; sometimes grey; then `normalise`."""
    strength = recipe.colour_jitter
    gain = 1 + rng.uniform(-strength, strength) + rng.uniform(-strength, strength, size=3) / 3
    centre = bgr.mean()
    bgr = (bgr - centre) * gain + centre * (1 + rng.uniform(-strength, strength))
    if rng.random() < recipe.colour_drop:
        bgr = np.repeat(bgr.mean(axis=2, keepdims=True), 3, axis=2)
    return normalise(np.clip(bgr, 0, 255).astype(np.uint8))


def draw_crops(
    samples: Sequence[SegmentationSample], recipe: CropRecipe, n: int, rng: np.random.Generator
) -> list[Crop]:
    """n crops with at least one object each; pictures with more objects are drawn more often (square root)."""
    shares = np.sqrt([len(s.objects) for s in samples])
    shares /= shares.sum()
    crops: list[Crop] = []
    for _ in range(_TRIES * n):
        crop = draw_crop(samples[rng.choice(len(samples), p=shares)], recipe, rng)
        if crop is not None:
            crops.append(crop)
        if len(crops) == n:
            return crops
    raise TrainingError(
        f"{_TRIES * n} crops of {recipe.side_px} px held no object; the polygons are too small, or raise --imgsz"
    )


def some_objects(crop: Crop, n: int, rng: np.random.Generator) -> Crop:
    """The same crop with at most n of its objects, drawn at random."""
    chosen = rng.permutation(len(crop.masks))[:n]
    names = tuple(crop.class_names[i] for i in chosen)
    return replace(crop, masks=crop.masks[chosen], boxes=crop.boxes[chosen], class_names=names)
