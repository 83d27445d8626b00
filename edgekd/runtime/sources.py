"""Pictures come in: files, folders and videos become (name, picture) pairs, each picture (H, W, 3) uint8 BGR."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edgekd.errors import InputError
from edgekd.runtime.preprocess import check_picture
from edgekd.types import UInt8Array

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".jp2")
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg")


@dataclass(frozen=True)
class Frame:
    """One picture and where it comes from; `index` counts the frames of a video and is None for a file."""

    name: str
    path: Path
    picture: UInt8Array
    index: int | None = None


def read_picture(path: str | Path) -> UInt8Array:
    """Read a picture file as (H, W, 3) uint8 BGR, turned upright by its EXIF orientation.

    Grey and one-bit pictures become three equal channels, palettes and CMYK their colours, transparency is dropped, and
    16-bit values are brought to 8 bits by the number of bits that the brightest pixel needs (an 11-bit satellite
    picture is divided by 8). `docs/pictures.md` has the table.

    Raises:
        InputError: the file is missing, empty, truncated, too large, not a picture, or has values that are not finite.
    """
    path = Path(path)
    try:
        if not path.is_file():
            state = "is not a plain file" if path.exists() else "does not exist"
            raise InputError(f"{path} {state}; give a picture file")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)[:200]!r} cannot be read ({error}); give a picture file") from error
    if not content:
        raise InputError(f"{path} is empty; give a picture file")
    data = np.frombuffer(content, np.uint8)
    if _is_cut_jpeg(data):
        raise InputError(f"{path} is a truncated JPEG (its end marker is missing); copy the file again")
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        raise InputError(
            f"{path} cannot be decoded ({error.err or error.func}); give a smaller or whole picture"
        ) from error
    if picture is None:
        raise InputError(f"{path} is not a picture that OpenCV can read; give one of {', '.join(PICTURE_SUFFIXES)}")
    picture = _to_bgr8(picture, path)
    check_picture(picture)
    return picture


def expand(sources: Iterable[str | Path]) -> list[Path]:
    """Return files and videos as they are named, and the picture files of folders (sorted, not recursive).

    Raises:
        InputError: a source does not exist, or a folder holds no pictures.
    """
    paths: list[Path] = []
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise InputError(f"{path} does not exist; give a picture, a video or a folder of pictures")
        paths.extend(pictures_in(path) if path.is_dir() else [path])
    return paths


def frames(path: Path) -> Iterator[Frame]:
    """Yield the one picture of a file, or every frame of a video.

    Raises:
        InputError: the picture or video cannot be read.
    """
    if path.suffix.lower() in VIDEO_SUFFIXES:
        yield from _video(path)
    else:
        yield Frame(path.stem, path, read_picture(path))


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files of a folder, sorted by name.

    Raises:
        InputError: there is none.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"{folder} holds no pictures ({', '.join(PICTURE_SUFFIXES)}); give another folder")
    return paths


def _video(path: Path) -> Iterator[Frame]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a video file")
    capture = cv2.VideoCapture(str(path))
    try:
        index = 0
        while True:
            read, picture = capture.read()
            if not read:
                break
            yield Frame(f"{path.stem}_{index:06d}", path, _to_bgr8(picture, path), index)
            index += 1
        if index == 0:
            raise InputError(f"{path} holds no video frame that OpenCV can decode; convert it to H.264 in an .mp4")
    finally:
        capture.release()


def _is_cut_jpeg(data: UInt8Array) -> bool:
    """OpenCV fills the missing part of a JPEG with grey and only warns; half a picture is not a whole one."""
    starts = len(data) > 3 and data[0] == 0xFF and data[1] == 0xD8
    return bool(starts and b"\xff\xd9" not in data[-4096:].tobytes())


def _to_bgr8(picture: np.ndarray, path: Path) -> UInt8Array:
    if picture.dtype.kind == "f":
        if not np.isfinite(picture).all():
            raise InputError(f"{path} holds values that are not finite (NaN or infinity); fill them before")
        peak = float(picture.max(initial=0.0))
        picture = np.clip(picture * (255.0 if peak <= 1.0 else 1.0), 0, 255).astype(np.uint8)
    elif picture.dtype == np.uint16:
        shift = max(0, int(picture.max(initial=0)).bit_length() - 8)
        picture = (picture >> shift).astype(np.uint8)
    elif picture.dtype != np.uint8:
        raise InputError(f"{path} has {picture.dtype} values, expected 8 or 16 bits or float; convert it")
    if picture.ndim == 2:
        picture = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(picture[:, :, :3])
