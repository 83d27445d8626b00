"""Where the command line writes: results to stdout, progress and log to stderr, files in one step."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from rich.console import Console

from edgekd.errors import InputError

out = Console(soft_wrap=True, markup=False, highlight=False)
log = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def write_file(path: Path, content: bytes) -> None:
    """Replace a file in one step; an interrupted or failed write leaves the old one.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); free space or give another path") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file in one step; errors as for `write_file`."""
    write_file(path, text.encode())
