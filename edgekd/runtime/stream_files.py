"""Results of a stream go out while it runs: one JSON line per frame, and an overlay video.

Every line is on the disk before the next frame is asked for, so that an interrupt loses nothing. A video needs its
index behind the last frame, and its writer says nothing of a full disk: a run with a video ends while there is room.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2

from edgekd.errors import InputError
from edgekd.runtime.journal import append_line, open_lines
from edgekd.runtime.results.draw import overlay
from edgekd.runtime.results.formats import objects_json
from edgekd.runtime.streams import StreamFrame
from edgekd.types import ChainResult, Int32Array, UInt8Array

RESERVE_BYTES = 64 << 20
"""Room that is left for the index of a video: 24 bytes per frame are 52 MB after a day of 25 frames per second."""


class StreamFiles:
    """NAME.jsonl and NAME_overlay.mp4 in a folder; use it as a context manager."""

    def __init__(self, folder: Path, name: str, frames_per_second: float, video: bool) -> None:
        """Start both files.

        Args:
            folder: is made when it is missing.
            name: of the source.
            frames_per_second: of the video; dropped frames make it shorter than the stream.
            video: False writes lines only.

        Raises:
            InputError: the folder cannot be written.
        """
        self._path = folder / f"{name}.jsonl"
        self._video_path = folder / f"{name}_overlay.mp4" if video else None
        self._fps = frames_per_second
        self._writer: cv2.VideoWriter | None = None
        self._size_px: tuple[int, int] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lines = open_lines(self._path)
            self._lines.truncate(0)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written ({error.strerror}); give another folder") from error

    def __enter__(self) -> StreamFiles:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
        self._lines.close()

    def add(self, frame: StreamFrame, result: ChainResult, tracks: Int32Array | None, age_ms: float) -> None:
        """Write one frame.

        Args:
            frame: from the stream.
            result: of the chain.
            tracks: (n,) number of each object's track; None without tracking.
            age_ms: of the frame when its result was ready.

        Raises:
            InputError: the disk is full; the lines before this one are kept whole, and so is the video.
        """
        objects = objects_json(result)
        if tracks is not None:
            objects = [{"track_id": int(number), **entry} for number, entry in zip(tracks, objects, strict=True)]
        name = {"name": frame.name} if frame.name else {}
        content: dict[str, Any] = {"frame": frame.index, **name, "age_ms": round(age_ms, 2), "objects": objects}
        if self._video_path is not None:
            self._check_room(self._video_path)
        try:
            append_line(self._lines, content)
        except OSError as error:
            raise InputError(f"{self._path} cannot be written ({error.strerror}); free space") from error
        if self._video_path is not None:
            self._write(self._video_path, _drawn(frame.picture, result, tracks))

    def _check_room(self, path: Path) -> None:
        free = shutil.disk_usage(path.parent).free
        if free < RESERVE_BYTES:
            raise InputError(
                f"{path} cannot go on: its disk has {free / 2**20:.1f} MiB left and the end of a video needs "
                f"{RESERVE_BYTES / 2**20:g} MiB; free space, or leave the overlay out"
            )

    def _write(self, path: Path, picture: UInt8Array) -> None:
        height, width = picture.shape[:2]
        if self._writer is None:
            self._size_px = height, width
            self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, (width, height))
            if not self._writer.isOpened():
                raise InputError(f"{path} cannot be written as a video here; leave the overlay out")
        if (height, width) != self._size_px:  # the camera changed its size after a cut; a video has one
            assert self._size_px is not None
            picture = cv2.resize(picture, self._size_px[::-1])  # type: ignore[assignment]
        self._writer.write(picture)


def _drawn(picture: UInt8Array, result: ChainResult, tracks: Int32Array | None) -> UInt8Array:
    canvas = overlay(picture, result)
    if tracks is not None:
        for number, box in zip(tracks, result.detections.xyxy, strict=True):
            if number >= 0:
                place = int((box[0] + box[2]) / 2), int((box[1] + box[3]) / 2)
                cv2.putText(canvas, str(number), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas
