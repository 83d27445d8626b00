"""Versions of a bundle: the name of the bundle is a link, switched in one step, and the last ones stay for a rollback.

    bundle           -> bundle.versions/7
    bundle.versions/6, bundle.versions/7

Whoever opens `bundle` follows the link once and reads one version. A build that was killed leaves the link where it
was; what it wrote is removed by the next one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekd.bundle import listed_files
from edgekd.errors import InputError
from edgekd.files import check_replaceable, collect_leftovers, exchange_link, remove, replace_link, said


@contextmanager
def kept_versions(bundle: Path, keep: int) -> Iterator[Path]:
    """Yield the folder of a new version; when the block ends without an exception, the bundle is that version.

    Args:
        bundle: the link to make or switch; a plain bundle folder becomes the first version.
        keep: how many versions stay, the new one among them; 1 yields the bundle itself, a plain folder.

    Raises:
        InputError: `bundle` is something else, its folder cannot be written, or another build is writing a version.
    """
    if keep == 1:
        yield bundle
        return
    versions = _versions_of(bundle)
    if not bundle.is_symlink():
        check_replaceable(bundle, listed_files)
    with said(bundle.parent):
        versions.mkdir(parents=True, exist_ok=True)
    with _alone(versions):
        with said(bundle.parent):
            collect_leftovers(versions)
            collect_leftovers(bundle.parent)
            _adopt(bundle, versions)
        current = _current(bundle)
        new = versions / str(max([0, *_numbers(versions)]) + 1)
        yield new
        with said(bundle.parent):
            for number in _numbers(versions):
                if current is not None and current < number < int(new.name):
                    remove(versions / str(number))  # withdrawn by a rollback, or never switched to
            _switch(bundle, new)
            for number in sorted(_numbers(versions))[:-keep]:
                remove(versions / str(number))


def roll_back(bundle: Path) -> Path:
    """Switch a bundle to the version before; the one it leaves stays until the next build.

    Returns:
        The folder of the version that the bundle is now.

    Raises:
        InputError: the bundle has no versions, or none before this one, or its folder cannot be written.
    """
    versions, current = _versions_of(bundle), _current(bundle)
    if current is None:
        raise InputError(
            f"{bundle} has no versions, expected a bundle of: edgekd build-engine MODELS --keep 2 -o {bundle}"
        )
    with _alone(versions):
        before = [number for number in _numbers(versions) if number < current]
        if not before:
            raise InputError(f"{bundle} is version {current}, the oldest that was kept; build it again")
        with said(bundle.parent):
            _switch(bundle, versions / str(max(before)))
    return versions / str(max(before))


def _versions_of(bundle: Path) -> Path:
    return bundle.with_name(f"{bundle.name}.versions")


def _numbers(versions: Path) -> list[int]:
    return [int(path.name) for path in versions.iterdir() if path.name.isdecimal()]


def _current(bundle: Path) -> int | None:
    """Return the number of the version that a bundle is; None where it is not a link to one."""
    if not bundle.is_symlink():
        return None
    target = Path(os.readlink(bundle))
    is_ours = target.parent == Path(_versions_of(bundle).name) and target.name.isdecimal()
    if not is_ours:
        raise InputError(f"{bundle} is a link to {target}, which edgekd has not made; give another output")
    return int(target.name)


def _adopt(bundle: Path, versions: Path) -> None:
    """Turn a bundle folder into a version and a link to it; it is a folder or a link at every moment."""
    if bundle.is_symlink() or not bundle.exists():
        return
    number = str(max([0, *_numbers(versions)]) + 1)
    copy = versions / f".{number}.copy"
    remove(copy)
    shutil.copytree(bundle, copy)
    copy.rename(versions / number)
    exchange_link(bundle, f"{versions.name}/{number}")


def _switch(bundle: Path, version: Path) -> None:
    replace_link(bundle, f"{version.parent.name}/{version.name}")


@contextmanager
def _alone(versions: Path) -> Iterator[None]:
    handle = os.open(versions, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"another build is writing a version into {versions}; wait for it") from error
        yield
    finally:
        os.close(handle)
