"""Cameras, network streams and video files: an address goes in, frames with their age come out.

reader thread: opens, decodes, opens again after a cut -> the latest frame -> whoever asks

A live source never makes its user wait for old frames: a frame that nobody asked for in time is dropped and counted. A
file loses none.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np

from edgekd.errors import InputError
from edgekd.runtime.preprocess import check_picture
from edgekd.types import UInt8Array

SCHEMES = ("rtsp://", "rtsps://", "http://", "https://", "udp://", "tcp://", "rtmp://")
PIPE = " ! "
"""Between the elements of a GStreamer pipeline."""

WAIT_BEFORE_OPENING_S = 0.5
AGES_KEPT = 100_000
"""An hour of 25 frames per second; a camera that runs for months must not fill the memory with ages."""


@dataclass(frozen=True)
class StreamOptions:
    """How patient a live source is.

    Attributes:
        stall_s: a stream that sends nothing for so long is opened again.
        give_up_s: the run ends when no frame came for so long.
    """

    stall_s: float = 3.0
    give_up_s: float = 30.0

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: a time is not positive.
        """
        if not (self.stall_s > 0 and self.give_up_s > 0):
            raise InputError(f"stall_s is {self.stall_s} and give_up_s {self.give_up_s}, expected seconds above 0")


@dataclass(frozen=True)
class StreamFrame:
    """One frame.

    Attributes:
        picture: (H, W, 3) uint8 BGR.
        index: counts the frames of the source from 0; dropped ones leave gaps.
        decoded_at: seconds of `time.perf_counter` when it was decoded.
        name: of its file, in a folder that is watched; empty otherwise.
    """

    picture: UInt8Array
    index: int
    decoded_at: float
    name: str = ""

    def age_ms(self) -> float:
        """Return the milliseconds since it was decoded; what camera and network took before is not known here."""
        return (time.perf_counter() - self.decoded_at) * 1e3


@dataclass
class StreamCounts:
    """What happened to a stream so far; `ages_ms` are those of the last `AGES_KEPT` results, in order."""

    n_read: int = 0
    n_results: int = 0
    n_dropped: int = 0
    n_cuts: int = 0
    ages_ms: deque[float] = field(default_factory=lambda: deque(maxlen=AGES_KEPT))

    def add_result(self, age_ms: float) -> None:
        """Count a result and keep the age of its frame."""
        self.n_results += 1
        self.ages_ms.append(age_ms)


def is_live(source: str) -> bool:
    """Return whether a source is a camera's index, a network address or a GStreamer pipeline."""
    return source.isdecimal() or source.startswith(SCHEMES) or PIPE in source


def _has_gstreamer() -> bool:
    lines = cv2.getBuildInformation().splitlines()
    return any("GStreamer" in line and "YES" in line for line in lines)


def stream_name(source: str) -> str:
    """Return a name for the files of a source: `camera0`, `stream`, or the stem of a file."""
    if source.isdecimal():
        return f"camera{source}"
    return "stream" if is_live(source) else Path(source).stem


class Stream:
    """An open source. Iterate over it; use it as a context manager.

    Attributes:
        source: as it was given.
        live: frames that nobody asks for in time are dropped.
        name: for files.
        has_video: its frames make one video.
        fps: what the source says of its frames per second, 25 where it says nothing.
        counts: what happened so far.

    Raises:
        InputError: the source cannot be opened, sends nothing that can be decoded, or is silent for `give_up_s`.
    """

    has_video = True

    def __init__(self, source: str, options: StreamOptions | None = None) -> None:
        self.source, self.live, self.name = source, is_live(source), stream_name(source)
        self.counts = StreamCounts()
        self._options = options or StreamOptions()
        if PIPE in source and not _has_gstreamer():
            raise InputError(
                "the source is a GStreamer pipeline and this OpenCV was built without GStreamer, as the wheels of the "
                "package index are; install one that has it, such as Debian's python3-opencv, or give an address"
            )
        self._capture = _open(source, self._options)
        if not self._capture.isOpened():
            self._capture.release()
            raise InputError(f"{_what(source)} cannot be opened; check that it is there and that nobody else uses it")
        self.fps = _fps(self._capture)
        self._change = threading.Condition()
        self._frame: StreamFrame | None = None
        self._end: str | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._read, name="edgekd-stream", daemon=True)
        self._thread.start()

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[StreamFrame]:
        while True:
            with self._change:
                # A short wait lets Ctrl-C through on every system.
                while self._frame is None and self._end is None:
                    self._change.wait(0.2)
                frame, self._frame = self._frame, None
                self._change.notify_all()
            if frame is None:
                break
            yield frame
        if self._end:
            raise InputError(self._end)

    def close(self) -> None:
        """Stop reading; a reader that waits for the network is left to its timeout."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        self._thread.join(self._options.stall_s + 1)

    def _read(self) -> None:
        last = time.perf_counter()
        while not self._stopped:
            read, picture = self._capture.read()
            if read and picture is not None:
                last = time.perf_counter()
                self._offer(picture, last)
                continue
            if not self.live:
                self._finish("" if self.counts.n_read else f"{self.source} holds no frame that can be decoded")
                break
            if time.perf_counter() - last > self._options.give_up_s:
                self._finish(f"{_what(self.source)} sent no frame for {self._options.give_up_s:g} s; check it")
                break
            self._open_again()
        self._capture.release()

    def _offer(self, picture: np.ndarray, now: float) -> None:
        frame = StreamFrame(_bgr(picture), self.counts.n_read, now)
        with self._change:
            self.counts.n_read += 1
            while not self.live and self._frame is not None and not self._stopped:
                self._change.wait(0.2)
            if self._frame is not None:
                self.counts.n_dropped += 1
            self._frame = frame
            self._change.notify_all()

    def _open_again(self) -> None:
        self.counts.n_cuts += self._capture.isOpened()  # failed attempts belong to the same cut
        self._capture.release()
        time.sleep(WAIT_BEFORE_OPENING_S)
        self._capture = _open(self.source, self._options)

    def _finish(self, reason: str) -> None:
        with self._change:
            self._end = reason
            self._change.notify_all()


def summary(counts: StreamCounts, seconds: float) -> dict[str, float | int]:
    """Return the end of a run in numbers: frames per second, dropped frames, cuts, percentiles of the age.

    Args:
        counts: of the stream.
        seconds: how long it ran.
    """
    ages = np.array(counts.ages_ms or [0.0])
    return {
        "n_read": counts.n_read,
        "n_results": counts.n_results,
        "n_dropped": counts.n_dropped,
        "n_cuts": counts.n_cuts,
        "results_per_second": round(counts.n_results / max(seconds, 1e-9), 2),
        **{f"age_p{p}_ms": round(float(np.percentile(ages, p)), 1) for p in (50, 95, 99)},
    }


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep OpenCV and FFmpeg from writing lines of their own about what an error says in one sentence."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read once, by the first FFmpeg source of the process
    logging = cv2.utils.logging
    level = logging.getLogLevel()
    logging.setLogLevel(logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        logging.setLogLevel(level)


def _open(source: str, options: StreamOptions) -> cv2.VideoCapture:
    with _quiet():
        return _opened(source, options)


def _opened(source: str, options: StreamOptions) -> cv2.VideoCapture:
    if source.isdecimal():
        return cv2.VideoCapture(int(source))
    if PIPE in source:
        return cv2.VideoCapture(source, cv2.CAP_GSTREAMER)
    if is_live(source):
        patience_ms = round(options.stall_s * 1e3)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, patience_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, patience_ms]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(source)


def _fps(capture: cv2.VideoCapture) -> float:
    found = float(capture.get(cv2.CAP_PROP_FPS))
    return found if 1 <= found <= 240 else 25.0


def _what(source: str) -> str:
    """Name a source in a message, without the password of an address."""
    if source.isdecimal():
        return f"camera {source}"
    scheme, mark, rest = source.partition("://")
    return f"{scheme}{mark}{rest.rpartition('@')[2]}" if mark and PIPE not in source else source


def _bgr(picture: np.ndarray) -> UInt8Array:
    colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR) if picture.ndim == 2 else picture
    check_picture(colour)
    return np.asarray(colour, np.uint8)
