"""What `torch.save` writes, as bytes: a file is then written in one step, and a lack of memory has a name."""

from __future__ import annotations

import io
from typing import Any

import torch


def saved_bytes(content: dict[str, Any]) -> bytes:
    """Return the file that `torch.save` makes of `content`.

    PyTorch's own writer of files gives no reason when the disk is full, so the bytes are made first.

    Raises:
        MemoryError: there is no room for the bytes.
    """
    buffer = io.BytesIO()
    try:
        torch.save(content, buffer)
        return buffer.getvalue()
    except Exception as error:
        # A buffer that cannot grow closes itself; PyTorch goes on and says "closed file" or "unexpected pos".
        if buffer.closed:
            raise MemoryError("no room for a checkpoint") from error
        raise
