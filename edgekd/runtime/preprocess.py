"""A picture becomes a network's input: the one function that the chain, calibration, evaluation and bench all use.

(H, W, 3) uint8 BGR goes in; (1, 3, h, w) float32 RGB, normalised, and the placement that maps boxes back come out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from edgekd.errors import InputError
from edgekd.model_set import ImageInput
from edgekd.types import Float32Array, UInt8Array

MAX_SIDE_PX = 65_000


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the input: input = picture * scale + offset, in pixels.

    Attributes:
        scale_x, scale_y: input pixels per picture pixel; they differ by the rounding of the resized size only.
        left_px, top_px: offset of the picture in the input.
        picture_px: (height, width) of the picture.
        resized_px: (height, width) of the picture in the input.
        input_px: (height, width) of the input, the padding included.
    """

    scale_x: float
    scale_y: float
    left_px: int
    top_px: int
    picture_px: tuple[int, int]
    resized_px: tuple[int, int]
    input_px: tuple[int, int]

    def to_input(self, xyxy: Float32Array) -> Float32Array:
        """Map (n, 4) boxes from picture to input pixels."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.left_px, self.top_px] * 2, np.float32)
        return np.asarray(xyxy * scale + offset, np.float32)

    def to_picture(self, xyxy: Float32Array) -> Float32Array:
        """Map (n, 4) boxes from input to picture pixels and clip them to the picture."""
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        offset = np.array([self.left_px, self.top_px] * 2, np.float32)
        height, width = self.picture_px
        limit = np.array([width, height] * 2, np.float32)
        return np.asarray(np.clip((xyxy - offset) / scale, 0, limit), np.float32)


def check_picture(picture: UInt8Array) -> None:
    """Refuse what is not a colour picture.

    Raises:
        InputError: not (H, W, 3) uint8, empty, or a side over 65,000 px.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        found = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
        raise InputError(
            f"the picture is {found}, expected a uint8 array (height, width, 3) in BGR order; "
            "read files with edgekd.read_picture(path)"
        )
    if min(picture.shape[:2]) < 1 or max(picture.shape[:2]) > MAX_SIDE_PX:
        raise InputError(
            f"the picture has {picture.shape[1]}x{picture.shape[0]} px, expected 1 to {MAX_SIDE_PX} a side"
        )


def place(picture_px: tuple[int, int], spec: ImageInput) -> Placement:
    """Compute where a picture of (height, width) lies in the input that `spec` describes.

    The full size gives the scale, which keeps the aspect ratio; the smallest size that holds the picture at that scale
    is the input. `centre` splits the padding as Ultralytics' LetterBox does, `top_left` puts all of it right and below
    as SAM does.
    """
    height, width = picture_px
    ratio = min(spec.height_px / height, spec.width_px / width)
    new_height, new_width = max(1, round(height * ratio)), max(1, round(width * ratio))
    input_px = min(
        (size for size in spec.smaller_sizes_px if size[0] >= new_height and size[1] >= new_width),
        key=lambda size: size[0] * size[1],
        default=(spec.height_px, spec.width_px),
    )
    left = top = 0
    if spec.place == "centre":
        left = round((input_px[1] - new_width) / 2 - 0.1)
        top = round((input_px[0] - new_height) / 2 - 0.1)
    return Placement(new_width / width, new_height / height, left, top, picture_px, (new_height, new_width), input_px)


def preprocess(picture: UInt8Array, spec: ImageInput) -> tuple[Float32Array, Placement]:
    """Resize, pad, normalise and reorder one picture.

    Args:
        picture: (H, W, 3) uint8 BGR.
        spec: size, placement and normalisation of the input.

    Returns:
        (1, 3, *placement.input_px) float32 RGB, and the placement.

    Raises:
        InputError: see `check_picture`.
    """
    check_picture(picture)
    placement = place(picture.shape[:2], spec)
    height, width = placement.resized_px
    if picture.shape[:2] != (height, width):
        how = cv2.INTER_AREA if averages(placement, spec) else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (width, height), interpolation=how)
    blob = np.empty((1, 3, *placement.input_px), np.float32)
    rows = slice(placement.top_px, placement.top_px + height)
    columns = slice(placement.left_px, placement.left_px + width)
    for channel in range(3):
        mean, std, pad = spec.mean[channel], spec.std[channel], spec.pad[channel]
        # A table of the 256 possible values is exact and faster than arithmetic on every pixel.
        table = ((np.arange(256, dtype=np.float64) - mean) / std).astype(np.float32)
        plane = blob[0, channel]
        if (height, width) != plane.shape:
            plane.fill((pad - mean) / std)
        plane[rows, columns] = cv2.LUT(np.ascontiguousarray(picture[:, :, 2 - channel]), table)
    return blob, placement


def averages(placement: Placement, spec: ImageInput) -> bool:
    """Say whether the picture is resized by averaging areas, as an antialiased resize does; otherwise linearly."""
    shrinks = placement.scale_x < 1 and placement.scale_y < 1
    return spec.interpolation == "area" and shrinks
