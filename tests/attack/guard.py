"""What a reader of hostile input must not do, watched by an audit hook: start programs, connect, write elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pty.spawn")
REMOVING = ("os.remove", "os.rmdir", "shutil.rmtree", "os.rename")

_findings: list[str] = []
_watched: list[Path] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    if event in FORBIDDEN:
        _findings.append(f"{event} {arguments[:1]}")
    elif (
        event == "open"
        and isinstance(arguments[2], int)
        and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        or event in REMOVING
    ):
        _note_place(event, arguments[0])


def _note_place(event: str, place: Any) -> None:
    if isinstance(place, (str, bytes, os.PathLike)):
        path = Path(os.path.realpath(os.fsdecode(place)))
        allowed = (*_watched, Path("/dev"), Path("/proc"))
        if not any(path.is_relative_to(folder) for folder in allowed):
            _findings.append(f"{event} {path}")


sys.addaudithook(_hook)


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Yield the list of what was done against the rules; only `folder` may be written."""
    _findings.clear()
    _watched.append(folder.resolve())
    try:
        yield _findings
    finally:
        _watched.clear()
