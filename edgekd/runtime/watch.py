"""A folder that is being filled: its picture files come out one after another, each once and whole.

It looks like a `Stream` to whoever reads it, and drops nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from edgekd.errors import InputError
from edgekd.runtime.sources import PICTURE_SUFFIXES, read_picture
from edgekd.runtime.streams import StreamCounts, StreamFrame

POLL_S = 0.25
SETTLED_S = 0.5
"""A file that did not change for so long is whole."""


def watch(folder: Path, quiet_s: float | None = None) -> Iterator[Path]:
    """Yield the pictures of a folder as they arrive, the oldest first.

    A file is taken when its size and time stay the same for `SETTLED_S`: whoever writes it is then done.

    Args:
        folder: not searched recursively; hidden files are left alone.
        quiet_s: end when nothing new came for so long; None waits for ever.

    Raises:
        InputError: the folder does not exist, or goes away.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one to watch")
    taken: set[str] = set()
    seen: dict[str, tuple[tuple[int, int], float]] = {}  # the state of a file, and since when it is so
    last = time.monotonic()
    while True:
        now = _states(folder, taken)
        at = time.monotonic()
        seen = {name: seen[name] if name in seen and seen[name][0] == now[name] else (now[name], at) for name in now}
        whole = [name for name, (state, since) in seen.items() if state[0] > 0 and at - since >= SETTLED_S]
        for name in sorted(whole, key=lambda name: (now[name][1], name)):
            taken.add(name)
            yield folder / name
            last = time.monotonic()
        if quiet_s is not None and time.monotonic() - last > quiet_s:
            return
        time.sleep(POLL_S)


class WatchedFolder:
    """The pictures of a folder as frames. A file that is not a picture is counted as dropped and named to `note`."""

    fps, live, has_video = 25.0, True, False

    def __init__(self, folder: Path, note: Callable[[str], None], quiet_s: float | None = None) -> None:
        self.counts, self.name = StreamCounts(), folder.absolute().name or "folder"
        self._folder, self._note, self._quiet_s = folder, note, quiet_s

    def __enter__(self) -> WatchedFolder:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    def __iter__(self) -> Iterator[StreamFrame]:
        for path in watch(self._folder, self._quiet_s):
            self.counts.n_read += 1
            try:
                picture = read_picture(path)
            except InputError as error:
                self.counts.n_dropped += 1
                self._note(f"skipped: {error}")
                continue
            yield StreamFrame(picture, self.counts.n_read - 1, time.perf_counter(), path.name)


def _states(folder: Path, taken: set[str]) -> dict[str, tuple[int, int]]:
    """Size and time of the pictures that are not taken yet."""
    try:
        names = [
            path.name
            for path in folder.iterdir()
            if path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".") and path.name not in taken
        ]
    except OSError as error:
        raise InputError(f"{folder} cannot be read any more ({error.strerror})") from error
    states = {}
    for name in names:
        try:
            stat = (folder / name).stat()
        except FileNotFoundError:
            continue  # renamed or removed between the two looks
        states[name] = (stat.st_size, stat.st_mtime_ns)
    return states
