"""The import of TensorRT or TensorRT-RTX, and the one logger that each keeps for the life of a process.

A flag goes in, a `TensorRtLibrary` comes out; building and running share it.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from edgekd.environment import is_jetson
from edgekd.errors import BackendUnavailable

_LOG = logging.getLogger("edgekd.tensorrt")


@dataclass(frozen=True)
class TensorRtLibrary:
    """An imported TensorRT and the one logger that it keeps for the life of the process.

    Attributes:
        api: the module `tensorrt` or `tensorrt_rtx`.
        logger: an `ILogger` that passes everything to Python's logging and the last errors to `errors`.
        errors: the latest error messages, newest last.
    """

    api: Any
    logger: Any
    errors: deque[str]

    def forget_errors(self) -> None:
        """Start to listen afresh, before a call that may fail."""
        self.errors.clear()

    def last_error(self) -> str:
        """Return what the library said last, on one line."""
        return one_line(self.errors[-1]) if self.errors else "no reason given"


@cache
def tensorrt_library(rtx: bool) -> TensorRtLibrary:
    """Import TensorRT, or TensorRT-RTX.

    Raises:
        BackendUnavailable: it is not installed, or only its type stubs are.
    """
    name, package = ("tensorrt_rtx", "tensorrt-rtx") if rtx else ("tensorrt", "tensorrt")
    cure = f"install it with: pip install {package}"
    if not rtx and is_jetson():
        cure = "JetPack brings it and this environment hides it; make one with: python3 -m venv --system-site-packages"
    try:
        api = import_module(name)
    except (ImportError, OSError) as error:
        raise BackendUnavailable(f"{name} cannot be imported ({one_line(str(error))}); {cure}") from error
    if not hasattr(api, "Builder"):
        raise BackendUnavailable(f"{name} is only an empty package here, type stubs without the library; {cure}")
    errors: deque[str] = deque(maxlen=16)
    return TensorRtLibrary(api, _make_logger(api, errors), errors)


def library_version(rtx: bool) -> str:
    """Return the version of TensorRT or TensorRT-RTX on this machine, as it is recorded in a manifest.

    Raises:
        BackendUnavailable: the library is not on this machine.
    """
    return str(tensorrt_library(rtx).api.__version__)


def one_line(text: str) -> str:
    """Return a library's message as part of a sentence: one line, no full stop, at most 300 characters."""
    return " ".join(text.split())[:300].rstrip(". ")


def _make_logger(trt: Any, errors: deque[str]) -> Any:
    severity = trt.ILogger.Severity
    # An error ends in a sentence of ours, so it is kept and not printed a second time.
    levels = {severity.INTERNAL_ERROR: logging.INFO, severity.ERROR: logging.INFO, severity.WARNING: logging.INFO}

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                errors.append(message)
            _LOG.log(levels.get(severity, logging.DEBUG), message)

    return Logger()
