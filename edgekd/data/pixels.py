"""The pixels of a labelled picture: the runtime's own decoder, and a check that the labels speak of this picture."""

from __future__ import annotations

from edgekd.data.labels import LabelledPicture
from edgekd.errors import DataError, InputError
from edgekd.runtime.sources import read_picture
from edgekd.types import UInt8Array


def read_pixels(picture: LabelledPicture) -> UInt8Array:
    """Return the picture as (H, W, 3) uint8 BGR, upright: what training, calibration, evaluation and the runtime see.

    Raises:
        DataError: the file cannot be read, or has another size than its labels say.
    """
    try:
        pixels = read_picture(picture.path)
    except InputError as error:
        raise DataError(str(error)) from error
    if pixels.shape[:2] != picture.size_px:
        found, expected = pixels.shape[1::-1], picture.size_px[::-1]
        raise DataError(
            f"{picture.path} has {found[0]}x{found[1]} px and its label says {expected[0]}x{expected[1]}; "
            "label the picture again or restore the one that was labelled"
        )
    return pixels
