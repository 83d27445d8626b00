"""Files and folders: written in one step, hashed, cached, and cleared away after a killed run.

A reader sees the old thing or the new thing, never a part; a full or read-only disk is one sentence. What is being
written lies beside its destination under a name with `.edgekd-tmp-`, locked for as long as its process lives, so that
the next call can tell what a killed run has left and removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import io
import json
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgekd.errors import InputError

_LOG = logging.getLogger("edgekd.files")
_MARK = "edgekd-tmp-"
_NEARLY_FULL_BYTES = 1 << 20
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EIO,
    errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
Listed = Callable[[Path], Collection[str] | None]
"""Names of the files that belong to a folder, None when the folder is of another kind."""


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_folder(*parts: str) -> Path:
    """Return the folder of what can be had again: EDGEKD_CACHE, else `edgekd` in the user's cache folder.

    Args:
        parts: the room within it, such as `kernels`.
    """
    named = os.environ.get("EDGEKD_CACHE")
    root = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekd"
    return root.joinpath(*parts)


def read_json(path: Path, max_bytes: int) -> Any:
    """Read a JSON file that may come from anybody; errors as for `read_limited` and `parse_json`."""
    return parse_json(read_limited(path, max_bytes))


def read_limited(path: Path, max_bytes: int) -> bytes:
    """Read a file that may come from anybody.

    Raises:
        ValueError: it cannot be read or is too large; the message says which in a few words.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(error.strerror or "it cannot be read") from error
    if len(content) > max_bytes:
        raise ValueError(f"more than {max_bytes} bytes")
    return content


def parse_json(content: bytes) -> Any:
    """Parse JSON that may come from anybody.

    Raises:
        ValueError: it is not JSON, holds NaN or infinity, a number of thousands of digits, a name twice, or text with
            control characters or halves of characters; the message says which in a few words.
    """
    try:
        raw = json.loads(content.decode("utf-8"), parse_constant=_refused, object_pairs_hook=_without_repeats)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    _check_texts(raw)
    return raw


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Readers differ in which of two values of one name they take."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name {max(names, key=names.count)[:40]!a} stands there twice")
    return content


def is_file(path: Path) -> bool:
    """Say whether a file is there; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _refused(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def _check_texts(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            waiting += item
        elif isinstance(item, str) and not item.isprintable() and any(_is_hostile(letter) for letter in item):
            raise ValueError(f"the text {item[:40]!a} with characters that cannot be shown")


def _is_hostile(letter: str) -> bool:
    return letter < " " or "\x7f" <= letter <= "\x9f" or "\ud800" <= letter <= "\udfff"


@contextmanager
def atomic_folder(destination: Path, listed: Listed) -> Iterator[Path]:
    """Yield a temporary folder that becomes `destination` when the block ends without an exception.

    Everything is flushed to the disk before; an old `destination` is exchanged for it in one step where the system can
    (renameat2), in two renames otherwise, which a warning of the logger `edgekd.files` says.

    Args:
        destination: the folder to make or replace; a link is followed.
        listed: says which files of an old folder belong to it; one that is of another kind or holds another file is
            not replaced.

    Raises:
        InputError: the old folder may not be replaced, or the disk is full or read-only; the old one stays.
    """
    destination = Path(os.path.realpath(destination))
    with said(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        check_replaceable(destination, listed)
        collect_leftovers(destination.parent)
    with said(destination), _temporary(destination.parent, f".{destination.name[:80]}.{_MARK}") as folder:
        yield folder
        folder.chmod(0o755)
        for path in folder.iterdir():
            _flush(path)
        _flush(folder)
        check_replaceable(destination, listed)  # again, because a build takes minutes
        _replace(folder, destination)
        _flush(destination.parent)


@contextmanager
def atomic_file(path: Path, mode: int = 0o644) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix, that replaces it when the block ends without an exception.

    A link is followed; a device such as /dev/null is written as it is.

    Args:
        path: the file to make or replace.
        mode: permissions of a new file; an old one's stay.

    Raises:
        InputError: the folder cannot be written or the disk is full; the old file stays.
    """
    path = Path(os.path.realpath(path))
    with said(path):
        if path.exists() and not path.is_file():
            yield path
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        collect_leftovers(path.parent)
        temporary, lock = _claimed(lambda: _new_file(path))
    try:
        with said(path):
            yield temporary
            _flush(temporary)
            temporary.chmod(stat.S_IMODE(path.stat().st_mode) if path.exists() else mode)
            os.replace(temporary, path)
            _flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(lock)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace a file in one step; errors as for `atomic_file`."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file in one step; errors as for `atomic_file`."""
    write_bytes(path, text.encode())


def bytes_of(save: Callable[[io.BytesIO], object]) -> bytes:
    """Return the bytes that a library would write into a file; MemoryError when memory runs out."""
    buffer = io.BytesIO()
    try:
        save(buffer)
    except Exception as error:
        if buffer.closed:  # as one is that cannot grow; PyTorch goes on and says "unexpected pos"
            raise MemoryError("no room for the bytes of a file") from error
        raise
    return buffer.getvalue()


def replace_link(path: Path, target: str) -> None:
    """Make a symbolic link, or point an old one elsewhere, in one step.

    Raises:
        InputError: the folder cannot be written.
    """
    with said(path), _temporary(path.parent, f".{path.name[:80]}.{_MARK}") as folder:
        (folder / "link").symlink_to(target)
        os.replace(folder / "link", path)
        _flush(path.parent)


def exchange_link(path: Path, target: str) -> None:
    """Put a symbolic link in the place of a folder, in one step where the system can; the folder is removed.

    Raises:
        InputError: the folder cannot be written.
    """
    with said(path), _temporary(path.parent, f".{path.name[:80]}.{_MARK}") as folder:
        link = folder / "link"
        link.symlink_to(target)
        if not _exchange(link, path):
            _LOG.warning("this file system cannot exchange a folder and a link; %s is replaced by two renames", path)
            path.rename(folder / "old")
            link.rename(path)
        _flush(path.parent)


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """Yield a folder among the system's temporary ones that is removed afterwards.

    Raises:
        InputError: the temporary folder is full or cannot be written.
    """
    root = Path(tempfile.gettempdir())
    cure = "free space or set TMPDIR to another folder"
    with said(root, cure):
        collect_leftovers(root)
    with _temporary(root, f"edgekd-{purpose}.{_MARK}") as folder:
        try:
            yield folder
        except OSError as error:
            # An error that names no file may come from the destination as well.
            is_full = error.errno == errno.ENOSPC and shutil.disk_usage(root).free < _NEARLY_FULL_BYTES
            if is_full or str(folder) in os.fsdecode(error.filename2 or error.filename or ""):
                raise InputError(f"{root} cannot be written ({error.strerror}); {cure}") from error
            raise


def collect_leftovers(folder: Path) -> None:
    """Remove what runs that were killed have left in a folder; what a living process holds stays."""
    for path in (*folder.glob(f".*.{_MARK}????????*"), *folder.glob(f"edgekd-*.{_MARK}????????")):
        with suppress(OSError):
            if path.lstat().st_uid != os.getuid():
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(lock)


@contextmanager
def said(path: Path, cure: str = "free space or give another output") -> Iterator[None]:
    """Turn what the disk says about `path`, what is above or below it, or no file at all, into one sentence.

    Raises:
        InputError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        # A copy names its source first.
        named = Path(os.fsdecode(error.filename2 or error.filename or path))
        ours = named == path or named in path.parents or path in named.parents or _MARK in str(named)
        if error.errno not in _DISK_ERRORS or not ours:
            raise
        raise InputError(f"{path} cannot be written ({error.strerror}); {cure}") from error


def check_replaceable(destination: Path, listed: Listed) -> None:
    """Refuse to replace what edgekd has not written; arguments and errors as for `atomic_folder`."""
    if not destination.exists():
        return
    if not destination.is_dir():
        raise InputError(f"{destination} is a file, expected a folder to write; give another output")
    names = {path.name for path in destination.iterdir()}
    if not names:
        return
    known = listed(destination)
    if known is None:
        raise InputError(f"{destination} is not empty and not written by edgekd for this; give another output folder")
    if foreign := sorted(names - set(known)):
        raise InputError(
            f"{destination} holds {foreign[0]!r}, which edgekd has not written, and would lose it; "
            "move it away or give another output folder"
        )


@contextmanager
def _temporary(parent: Path, prefix: str) -> Iterator[Path]:
    folder, lock = _claimed(lambda: tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _new_file(path: Path) -> str:
    handle, name = tempfile.mkstemp(prefix=f".{path.stem[:80]}.{_MARK}", suffix=path.suffix[:20], dir=path.parent)
    os.close(handle)
    return name


def _claimed(make: Callable[[], str]) -> tuple[Path, int]:
    """Make a file or folder and lock it: the path and the handle that holds the lock."""
    while True:
        path = Path(make())
        try:
            lock = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            continue
        with suppress(OSError):  # a file system without locks: then nothing is collected either
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path, lock
        os.close(lock)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(folder: Path, destination: Path) -> None:
    """Put `folder` in the place of `destination`; what was there lies at `folder` afterwards."""
    if not destination.exists():
        folder.rename(destination)
        return
    if _exchange(folder, destination):
        return
    _LOG.warning("this file system cannot exchange folders; %s is replaced by two renames", destination)
    old = Path(tempfile.mkdtemp(prefix=f".{destination.name[:80]}.{_MARK}", dir=destination.parent))
    destination.rename(old / destination.name)
    try:
        folder.rename(destination)
    except BaseException:
        (old / destination.name).rename(destination)
        raise
    finally:
        remove(old)


def _exchange(a: Path, b: Path) -> bool:
    """Exchange two paths in one step; False where the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), ctypes.c_uint(_RENAME_EXCHANGE)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(code, os.strerror(code), str(b))


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; one that is not there is left alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
