"""Where the command line writes: results to stdout, progress and log to stderr, files in one step."""

from __future__ import annotations

from rich.console import Console

from edgekd.files import write_bytes as write_file
from edgekd.files import write_text

__all__ = ["log", "out", "write_file", "write_text"]
out = Console(soft_wrap=True, markup=False, highlight=False)
log = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
