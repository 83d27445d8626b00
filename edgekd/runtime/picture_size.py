"""The size of a picture file without decoding it: JPEG and PNG by their headers, everything else by `read_picture`.

Labels in fractions need the size of every picture of a data set. The slow truth is `read_picture(path).shape[:2]`; a
header that is not entirely plain goes that way.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from edgekd.errors import InputError
from edgekd.runtime.preprocess import MAX_SIDE_PX
from edgekd.runtime.sources import read_picture

_FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: what OpenCV decodes
_ORIENTATION = 0x0112
_MOST_PIXELS = 1 << 30  # what OpenCV decodes; it says so itself
_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


def picture_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of the upright picture.

    Raises:
        InputError: the file is missing, empty, truncated, too large or not a picture.
    """
    if path.is_file():
        with path.open("rb") as file:
            size_px = _from_header(file)
        if size_px is not None and max(size_px) > MAX_SIDE_PX:
            raise InputError(f"{path} has {size_px[1]}x{size_px[0]} px, expected 1 to {MAX_SIDE_PX} a side")
        if size_px is not None and 0 < size_px[0] * size_px[1] <= _MOST_PIXELS:
            return size_px
    height, width = read_picture(path).shape[:2]
    return height, width


def _from_header(file: BinaryIO) -> tuple[int, int] | None:
    start = file.read(33)
    file.seek(0, 2)
    tail_bytes = min(file.tell(), 4096)
    file.seek(-tail_bytes, 2)
    tail = file.read()
    if start[:2] == b"\xff\xd8" and b"\xff\xd9" in tail:
        file.seek(2)
        return _jpeg_size(file)
    if start[:8] == b"\x89PNG\r\n\x1a\n" and start[12:16] == b"IHDR" and tail.endswith(b"IEND\xaeB`\x82"):
        file.seek(33)
        width, height = struct.unpack(">II", start[16:24])
        if zlib.crc32(start[12:29]) != struct.unpack(">I", start[29:33])[0]:
            return None
        return None if _png_is_turned(file) else (height, width)
    return None


def _jpeg_size(file: BinaryIO) -> tuple[int, int] | None:
    """Walk the segments to the frame header; an EXIF block on the way may turn the picture."""
    orientation = 1
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], struct.unpack(">H", head[2:])[0]
        content = file.read(length - 2) if length >= 2 else b""
        if marker == 0xE1 and content[:6] == b"Exif\x00\x00":
            found = _orientation(content[6:])
            if found is None:
                return None
            orientation = found
        if marker in _FRAMES and len(content) >= 5:
            height, width = struct.unpack(">HH", content[1:5])
            return (width, height) if orientation in _TURNED else (height, width)
        if length < 2 or 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return None
    return None


def _orientation(exif: bytes) -> int | None:
    """Return the orientation of a TIFF header's first directory, 1 where it has none, None where it is odd."""
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None or len(exif) < 10:
        return None
    offset = struct.unpack(order + "I", exif[4:8])[0]
    if offset + 2 > len(exif):
        return None
    (n_entries,) = struct.unpack(order + "H", exif[offset : offset + 2])
    for index in range(n_entries):
        entry = exif[offset + 2 + 12 * index : offset + 14 + 12 * index]
        if len(entry) < 12:
            return None
        tag, kind, count = struct.unpack(order + "HHI", entry[:8])
        if tag == _ORIENTATION:
            value = int(struct.unpack(order + "H", entry[8:10])[0])
            return value if kind == 3 and count == 1 and 1 <= value <= 8 else None
    return 1


def _png_is_turned(file: BinaryIO) -> bool:
    """Whether a chunk before the pixels may hold an orientation, or the chunks are damaged."""
    while len(head := file.read(8)) == 8:
        (length,), name = struct.unpack(">I", head[:4]), head[4:]
        if name == b"IDAT":
            return False
        if name == b"eXIf":
            return True
        file.seek(length + 4, 1)
    return True
