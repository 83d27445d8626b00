"""Bundles that tests change: as damage does, or as somebody does who writes fitting hashes afterwards."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IN_OPEN, IN_NONBLOCK = 0x20, 0x800


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a manifest and write the digest that fits it."""
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    content["digest"] = "0" * 64
    text = json.dumps(content)
    digest = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(text.replace("0" * 64, digest, 1))


def replace_file(bundle: Path, name: str, content: bytes) -> None:
    """Replace a file of a bundle and write the size and hashes that fit it."""
    (bundle / name).write_bytes(content)

    def rehash(manifest: dict[str, Any]) -> None:
        for stage in manifest["stages"].values():
            for file in stage["files"]:
                if file["name"] == name:
                    file.update(sha256=hashlib.sha256(content).hexdigest(), n_bytes=len(content))

    rewrite(bundle, rehash)


def flip(path: Path, place: int, bit: int) -> None:
    """Change one bit of a file."""
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << bit]))


@contextmanager
def counted_opens(folder: Path) -> Iterator[Counter[str]]:
    """Count how often each file of a folder is opened, by whatever library; filled when the block ends."""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.inotify_init1(IN_NONBLOCK)
    assert handle >= 0 and libc.inotify_add_watch(handle, os.fsencode(folder), IN_OPEN) >= 0
    counts: Counter[str] = Counter()
    try:
        yield counts
        events = b""
        while True:
            try:
                events += os.read(handle, 1 << 16)
            except BlockingIOError:
                break
        at = 0
        while at < len(events):
            length = struct.unpack_from("iIII", events, at)[3]
            name = events[at + 16 : at + 16 + length].rstrip(b"\0").decode()
            at += 16 + length
            if name:
                counts[name] += 1
    finally:
        os.close(handle)
