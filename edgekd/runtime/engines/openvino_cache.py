"""Networks that OpenVINO has compiled, kept in the user's cache so that the next process does not compile them again.

They are not kept in the bundle, which is closed, signed and often read-only. The name of a kept network follows from
all that it was made of, so an old one is never taken for another. Its file begins with the digest of the rest: one that
was damaged or cut off is compiled again. A folder that others can write is not used, because who writes there decides
what the networks compute.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekd.errors import InputError
from edgekd.files import bytes_of, cache_folder, read_limited, write_bytes

_LOG = logging.getLogger("edgekd.runtime")
_FORMAT = 1  # part of the name: raise it when the file changes
_DIGEST_BYTES = 32
_SUFFIX = ".openvino"

MAX_BYTES = 1 << 30
"""What all kept networks may take; those that were not used for the longest time are removed."""


def digest_of(contents: Iterable[bytes]) -> str:
    """Return 64 hexadecimal digits that stand for the bytes of a network's files, in their order."""
    parts = [hashlib.sha256(content).hexdigest() for content in contents]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def compile_kept(core: Any, model: Any, config: Mapping[str, Any], source: str) -> Any:
    """Return a compiled model for the CPU: the kept one, or one that is compiled and kept.

    EDGEKD_MODEL_CACHE=off neither reads nor keeps any. What cannot be kept, as on a full disk or without
    memory for it, is used all the same.

    Args:
        core: an `openvino.Core`.
        model: an `openvino.Model` whose shapes are settled.
        config: OpenVINO's properties.
        source: `digest_of` the files that the model was read from.

    Raises:
        RuntimeError: OpenVINO cannot compile it.
    """
    folder = _folder()
    if folder is None:
        return core.compile_model(model, "CPU", dict(config))
    path = folder / f"{_key(core, model, config, source)}{_SUFFIX}"
    kept = _read(path)
    if kept is not None:
        with suppress(RuntimeError):  # as for a file that another build of OpenVINO with this version number wrote
            return core.import_model(kept, "CPU", dict(config))
    compiled = core.compile_model(model, "CPU", dict(config))
    _keep(path, compiled)
    return compiled


def _folder() -> Path | None:
    """The folder of kept networks, None where none shall or may be used."""
    if os.environ.get("EDGEKD_MODEL_CACHE", "") == "off":
        return None
    try:
        folder = cache_folder("openvino")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        _LOG.info("compiled networks are not kept: %s", error)
        return None
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        _LOG.warning("compiled networks are not kept: others can write %s; run: chmod go-w %s", folder, folder)
        return None
    return folder


def _key(core: Any, model: Any, config: Mapping[str, Any], source: str) -> str:
    import openvino

    shapes = {port.get_any_name(): str(port.partial_shape) for port in model.inputs}
    device = [core.get_property("CPU", name) for name in ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES")]
    parts = [_FORMAT, openvino.get_version(), device, os.cpu_count(), dict(config), shapes, source]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        content = read_limited(path, MAX_BYTES)
    except (ValueError, MemoryError):
        return None
    kept = content[_DIGEST_BYTES:]
    if hashlib.sha256(kept).digest() != content[:_DIGEST_BYTES]:
        return None
    with suppress(OSError):
        os.utime(path)
    return kept


def _keep(path: Path, compiled: Any) -> None:
    try:
        kept = bytes_of(compiled.export_model)
        if len(kept) < MAX_BYTES:
            write_bytes(path, hashlib.sha256(kept).digest() + kept)
            _remove_oldest(path.parent)
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        _LOG.info("a compiled network is not kept: %s", error)


def _remove_oldest(folder: Path) -> None:
    """Remove the networks that were not used for the longest time until the rest takes at most `MAX_BYTES`."""
    found = sorted(
        ((path.stat().st_mtime, path.stat().st_size, path) for path in folder.glob(f"*{_SUFFIX}")), reverse=True
    )
    total_bytes = 0
    for _, n_bytes, path in found:
        total_bytes += n_bytes
        if total_bytes > MAX_BYTES:
            path.unlink(missing_ok=True)
