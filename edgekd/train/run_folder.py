"""The folder of a run: one process at a time, logs that only grow, and stops between two steps.

A folder goes in; a lock that the system gives back when the process ends, however it ends, and log files that a new or
a resumed run continues without losing a row come out.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from edgekd.errors import TrainingError
from edgekd.files import write_text


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make `folder` and hold it for this process while the block runs.

    The folder itself is locked (`flock`), so that nothing is left behind and a killed process holds nothing. Of several
    processes of one run (`torchrun`) the first holds it for all.

    Raises:
        TrainingError: the folder cannot be made, or another run writes into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise TrainingError(f"{folder} cannot be made ({error.strerror}); give another output folder") from error
    try:
        if int(os.environ.get("RANK", "0")) == 0:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise TrainingError(
            f"{folder} is in use by another run; wait for it to end, or give another output folder"
        ) from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Note Ctrl-C and SIGTERM while the block runs, so that a step is never cut in the middle.

    Yields a function that says whether somebody asked to stop. A second Ctrl-C interrupts at once. Outside the main
    thread, where Python takes no signals, nothing is noted.
    """
    asked = threading.Event()

    def note(number: int, _frame: FrameType | None) -> None:
        if asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def log_on_stderr() -> Iterator[None]:
    """Send what Ultralytics says to stderr while the block runs, which leaves stdout to results.

    Ultralytics is imported here, and may neither install, fetch nor send anything.
    """
    os.environ.setdefault("YOLO_OFFLINE", "true")
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    with contextlib.redirect_stdout(sys.stderr), contextlib.ExitStack() as afterwards:
        from ultralytics.utils import LOGGER

        for handler in LOGGER.handlers:
            if hasattr(handler, "setStream"):
                afterwards.callback(handler.setStream, handler.stream)
                handler.setStream(sys.stderr)
        yield


def set_aside(path: Path) -> None:
    """Rename a log that belongs to no resumable run to `<stem>.before<N><suffix>`; nothing is overwritten."""
    if not path.exists():
        return
    number = 1
    while (kept := path.with_name(f"{path.stem}.before{number}{path.suffix}")).exists():
        number += 1
    path.rename(kept)


def restore_log(path: Path, text: str) -> None:
    """Bring a log back to what a resume file says of it.

    Rows after `text` belong to work that is done again and go; a file that does not begin with `text` is set aside.
    """
    found = path.read_text() if path.exists() else ""
    if found == text:
        return
    if not found.startswith(text):
        set_aside(path)
    write_text(path, text)
