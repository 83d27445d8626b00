"""What every tile of a mosaic found, on the disk while the mosaic runs: an interrupted run goes on where it stopped.

A journal is a text file of JSON lines. The first names what the run belongs to; each further one holds the objects of
one tile, exact to the bit. A last line that was cut by the interrupt is ignored.
"""

from __future__ import annotations

import base64
import json
import zlib
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.types import BoolArray, Detections, Masks

FORMAT_VERSION = 1


def open_lines(path: Path) -> FileIO:
    """Open a file for `append_line`, at its end; it is made when it is missing.

    It has no buffer: what a full disk did not take would otherwise be written, and fail, once more when it is closed.

    Raises:
        OSError: it cannot be opened.
    """
    return FileIO(path, "a")


def append_line(file: FileIO, content: Any) -> int:
    """Append JSON and a line feed, and return where it begins.

    Raises:
        OSError: the disk is full; the part of the line that it took is cut off again.
    """
    line = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    place, written = file.seek(0, 2), 0
    try:
        while written < len(line):  # a disk that is nearly full takes a part
            written += file.write(line[written:])
    except OSError:
        with suppress(OSError):
            file.truncate(place)
        raise
    return place


class Journal:
    """The finished tiles of one run, by their index; only their places in the file are kept in memory.

    Attributes:
        n_kept: tiles found on the disk when the journal was opened.
        started_over: a journal of other pictures or options was there and has been replaced.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Open `path`, or start it; `key` names the picture, the options and the bundle.

        Raises:
            InputError: the file cannot be read or written.
        """
        self.path = path
        self._places: dict[int, int] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            found = self._read(key) if path.is_file() else None
            self.started_over = found is False
            self._lines = open_lines(path)
            self._lines.truncate(self._end if found else 0)  # what an interrupt left of a line
            if not found:
                append_line(self._lines, {"format_version": FORMAT_VERSION, "key": key})
            self._reader: IO[bytes] = path.open("rb")
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror}); free space or give another folder"
            ) from error
        self.n_kept = len(self._places)

    def __contains__(self, tile: int) -> bool:
        return tile in self._places

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add(self, tile: int, detections: Detections, masks: Masks | None) -> None:
        """Write what a tile found; boxes and masks in pixels of the tile.

        Raises:
            InputError: the disk is full; the tiles before this one stay readable.
        """
        try:
            self._places[tile] = append_line(self._lines, {"tile": tile} | encode_tile(detections, masks))
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be written ({error.strerror}); free space and run the same command again, "
                f"{len(self._places)} tiles are kept"
            ) from error

    def get(self, tile: int) -> tuple[Detections, Masks | None]:
        """Return what a finished tile found.

        Raises:
            InputError: the line of the tile has been damaged.
        """
        self._reader.seek(self._places[tile])
        try:
            return decode_tile(json.loads(self._reader.readline()))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError, zlib.error) as error:
            raise InputError(f"{self.path} is damaged at tile {tile}; remove it, and the run starts over") from error

    def close(self) -> None:
        """Close the file and keep it."""
        self._lines.close()
        self._reader.close()

    def discard(self) -> None:
        """Close the file and remove it: the run is complete and its results are written."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _read(self, key: str) -> bool:
        """Find the whole lines of the file; False when it belongs to something else."""
        with self.path.open("rb") as file:
            place = 0
            for number, line in enumerate(file):
                content = _whole(line)
                if number == 0 and (content is None or content.get("key") != key):
                    return False
                if content is None:
                    break
                if number:
                    self._places[content["tile"]] = place
                place += len(line)
        self._end = place
        return place > 0


def _whole(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_ours = isinstance(content, dict) and (type(content.get("tile")) is int or "key" in content)
    return content if is_ours else None


def encode_tile(detections: Detections, masks: Masks | None) -> dict[str, Any]:
    """Return what a tile found as JSON-ready values; `decode_tile` is the way back."""
    content: dict[str, Any] = {
        "xyxy": detections.xyxy.tolist(),
        "confidence": detections.confidence.tolist(),
        "class_id": detections.class_id.tolist(),
    }
    if detections.corners is not None:
        content["corners"] = detections.corners.tolist()
    if masks is not None:
        content |= {
            "size_px": list(masks.size_px),
            "windows": masks.windows.tolist(),
            "predicted_iou": masks.predicted_iou.tolist(),
            "crops": [_pack(crop) for crop in masks.crops],
        }
    return content


def decode_tile(content: dict[str, Any]) -> tuple[Detections, Masks | None]:
    """Return the boxes and masks of `encode_tile`."""
    detections = Detections(
        np.array(content["xyxy"], np.float32).reshape(-1, 4),
        np.array(content["confidence"], np.float32),
        np.array(content["class_id"], np.int32),
        np.array(content["corners"], np.float32).reshape(-1, 4, 2) if "corners" in content else None,
    )
    if "windows" not in content:
        return detections, None
    windows = np.array(content["windows"], np.int32).reshape(-1, 4)
    crops = [_unpack(text, window) for text, window in zip(content["crops"], windows, strict=True)]
    height, width = content["size_px"]
    return detections, Masks((height, width), windows, crops, np.array(content["predicted_iou"], np.float32))


def _pack(crop: BoolArray) -> str:
    return base64.b64encode(zlib.compress(np.packbits(crop).tobytes())).decode()


def _unpack(text: str, window: NDArray[np.int32]) -> BoolArray:
    left, top, right, bottom = (int(value) for value in window)
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    size = (bottom - top) * (right - left)
    return np.unpackbits(bits, count=size).astype(np.bool_).reshape(bottom - top, right - left)
