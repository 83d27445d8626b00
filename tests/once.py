"""What takes seconds to make is made once per session, by whichever worker of pytest-xdist asks first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder of this session that `make` has filled; tests read it and change nothing there.

    Other workers wait for the first one. A `make` that fails leaves nothing: the next one who asks tries again.
    """
    base = factory.getbasetemp()
    room = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    room.mkdir(exist_ok=True)
    folder, done = room / name, room / f"{name}.done"
    with (room / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder
