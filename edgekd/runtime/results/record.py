"""The record of a run: a file of JSON lines that says which files the run has written and which pictures are finished.

{"kind": "run", "format_version": 1, "key": ...}     once, first
{"kind": "files", "files": [...]}                    before these files are written
{"kind": "picture", "name": ..., "objects": [...]}   once per finished picture
{"kind": "end", "complete": true}                    once, last; false when the run was stopped
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekd.errors import InputError
from edgekd.runtime.journal import append_line, open_lines

FORMAT_VERSION = 1
Json = dict[str, Any]
Stamp = tuple[str, int | None, int, int]
"""Source, frame, size in bytes, time of change in ns."""


class RunRecord:
    """The lines of one run, appended and flushed one by one; the file is locked while the run goes on.

    Attributes:
        kept: finished pictures of an interrupted run with the same key.
        n_removed: files of an earlier run that were removed.
    """

    def __init__(self, path: Path, key: str) -> None:
        """Open the record of a folder: go on with an interrupted run of this key, else clear away what was there.

        Raises:
            InputError: the folder cannot be written, or another run holds it.
        """
        self._path, self._key = path, key
        self.kept: set[Stamp] = set()
        self.n_removed = 0
        self._ours: set[str] = {path.name}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_lines(path)
        except OSError as error:
            raise InputError(
                f"{path} cannot be written ({error.strerror}); free space or give another folder"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise InputError(f"{path.parent} is in use by another run; wait for it or give another folder") from error
        self._open()

    @property
    def is_closed(self) -> bool:
        """Whether `end` was called."""
        return self._file.closed

    def is_kept(self, path: Path, index: int | None) -> bool:
        """Return whether the picture is finished and its file has not changed since."""
        return bool(self.kept) and _stamp(path, index) in self.kept

    def announce(self, names: tuple[str, ...]) -> None:
        """Note files before they are written.

        Raises:
            InputError: one is there that no run has written, or the disk is full.
        """
        for name in names:
            if name not in self._ours and (self._path.parent / name).exists():
                raise InputError(
                    f"{self._path.parent / name} is there and was not written by a run; "
                    "move it away or give another output folder"
                )
        self._ours |= set(names)
        self._append({"kind": "files", "files": list(names)})

    def add(self, source: Path, index: int | None, entry: Json) -> None:
        """Append a finished picture."""
        self._append({"kind": "picture", **entry, "stamp": _stamp(source, index)})

    def end(self, complete: bool) -> None:
        """Append how the run ended, and close."""
        try:
            self._append({"kind": "end", "complete": complete})
        finally:
            self._file.close()

    def entries(self) -> Iterator[Json]:
        """Yield the finished pictures, without keeping them in memory."""
        for line in _lines(self._path):
            if line["kind"] == "picture":
                yield {name: value for name, value in line.items() if name not in ("kind", "stamp", "files")}

    def _open(self) -> None:
        key, complete, listed = None, True, set()
        for line in _lines(self._path):
            if line["kind"] == "run":
                key, complete = line.get("key"), False
            elif line["kind"] == "files":
                listed |= {name for name in line["files"] if _is_plain(name)}
            elif line["kind"] == "picture":
                self.kept.add(tuple(line["stamp"]))
            elif line["kind"] == "end":
                complete = bool(line["complete"])
        if key is not None and key == self._key and not complete:
            self._ours |= listed
            self._cut_half_line()
            return
        self.kept.clear()
        for name in listed:
            path = self._path.parent / name
            if path.is_file() or path.is_symlink():
                path.unlink()
                self.n_removed += 1
        self._file.truncate(0)
        self._append({"kind": "run", "format_version": FORMAT_VERSION, "key": self._key})

    def _cut_half_line(self) -> None:
        """Remove what a kill has left of a last line."""
        content = self._path.read_bytes()
        self._file.truncate(content.rfind(b"\n") + 1)

    def _append(self, line: Json) -> None:
        try:
            append_line(self._file, line)
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written ({error.strerror}); free space and run the same command again, "
                "what is finished is kept"
            ) from error


def entries_of(folder: Path) -> Iterator[Json]:
    """Yield the finished pictures of a run, finished or not.

    Raises:
        InputError: the folder does not hold a run.
    """
    path = folder / "results.jsonl"
    if not path.is_file():
        raise InputError(f"{folder} holds no results.jsonl; give the folder that edgekd run has written")
    for line in _lines(path):
        if line["kind"] == "picture":
            yield line


def _lines(path: Path) -> Iterator[Json]:
    """Yield the whole lines of a record; the first that is none ends it."""
    with path.open("rb") as file:
        for raw in file:
            try:
                line = json.loads(raw) if raw.endswith(b"\n") else None
            except (ValueError, RecursionError):
                line = None
            if not isinstance(line, dict) or not _is_line(line):
                return
            yield line


def _is_line(line: Json) -> bool:
    kinds = {"run": "key", "files": "files", "picture": "stamp", "end": "complete"}
    needed = kinds.get(str(line.get("kind")))
    value = line.get(needed) if needed else None
    return value is not None and (isinstance(value, list) or needed not in ("files", "stamp"))


def _is_plain(name: object) -> bool:
    """A file of the folder itself or of its labels; a record that names others was not written here."""
    if not isinstance(name, str):
        return False
    parts = name.removeprefix("labels/")
    return parts not in ("", ".", "..") and "/" not in parts and "\0" not in parts


def _stamp(path: Path, index: int | None) -> Stamp:
    try:
        stat = path.stat()
    except OSError:
        return str(path.absolute()), index, -1, -1
    return str(path.absolute()), index, stat.st_size, stat.st_mtime_ns
