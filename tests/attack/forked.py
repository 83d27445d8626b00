"""Commands in processes that are forked from one which has every library imported: a fault strikes the work itself.

Starting Python and importing PyTorch takes ten times as long as the smallest training run. A forked process has done
that already, so a command costs what its work costs, and a kill at a random moment rarely strikes an import.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

IMPORTED = (
    "edgekd.cli.main", "numpy", "cv2", "pydantic", "rich.progress", "onnx", "onnxruntime", "openvino",
)  # fmt: skip
IMPORTED_TO_TRAIN = (
    "torch", "torchvision", "timm", "scipy.optimize", "ultralytics.engine.trainer", "ultralytics.models.yolo.detect",
    "ultralytics.nn.tasks", "faster_coco_eval",
)  # fmt: skip
TIMEOUT_S = 300.0


def import_all(trains: bool) -> None:
    """Import what the commands import, for training too where `trains` says so; what is there costs nothing.

    Raises:
        SystemExit: an import started a thread, with which a forked process cannot be trusted.
    """
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    os.environ |= {"YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true", "ULTRALYTICS_SAFE_LOAD": "1"}
    for name in (*IMPORTED, *(IMPORTED_TO_TRAIN if trains else ())):
        importlib.import_module(name)
    if (n_threads := len(os.listdir("/proc/self/task"))) > 1:
        raise SystemExit(f"the imports started {n_threads - 1} threads, expected none before a fork")


def start(words: list[str], work: Path, errors: Path, prepare: Callable[[], None]) -> int:
    """Start `edgekd WORDS` in a forked process and return its number once the command begins.

    A signal before that would meet a process which has no handler of its own yet, and nothing to lose.

    Args:
        words: the command line after `edgekd`.
        work: the folder it runs in; its temporary files go to `work/tmp`.
        errors: the file that its stderr goes to.
        prepare: what the new process does first, such as setting a limit.
    """
    begins, waiting = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(begins)

        def begin() -> None:
            prepare()
            os.close(waiting)

        _be_the_command(words, work, errors, begin)
    os.close(waiting)
    os.read(begins, 1)  # returns when the other end is closed
    os.close(begins)
    return process


def call(function: Callable[[], object]) -> int:
    """Run a function in a forked process, which keeps the threads it starts out of this one; return the exit code."""
    process = os.fork()
    if process == 0:
        _end(function)
    return wait(process)


def wait(process: int, timeout_s: float = TIMEOUT_S) -> int:
    """Wait for the end and return the exit code, negative for a signal; 124 when it had to be killed after the time."""
    handle = os.pidfd_open(process)
    try:
        late = not select.select([handle], [], [], timeout_s)[0]
        if late:
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    finally:
        os.close(handle)
    return 124 if late else code


def _be_the_command(words: list[str], work: Path, errors: Path, prepare: Callable[[], None]) -> NoReturn:
    for number, path in ((1, Path(os.devnull)), (2, errors)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(handle, number)
        os.close(handle)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    (work / "tmp").mkdir(exist_ok=True)
    os.environ["TMPDIR"], tempfile.tempdir = str(work / "tmp"), None
    os.chdir(work)
    sys.argv = ["edgekd", *words]

    def command() -> None:
        from edgekd.cli.main import main

        prepare()
        main()

    _end(command)


def _end(function: Callable[[], object]) -> NoReturn:
    """Run and leave at once: what the program that was forked does at its own end is not this process's to do."""
    code = 0
    try:
        function()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        code = 1  # first: there may be no memory left to print
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(code)
