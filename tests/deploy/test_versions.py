"""Versions of a bundle: the link is the old or the new one at every moment, and the next call clears away."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekd.deploy.versions import kept_versions, roll_back
from edgekd.errors import InputError
from edgekd.files import atomic_folder

WRITES = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.symlink", "os.chmod", "os.truncate"}
KILLED = 77


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles of one small file that need not outlive a power cut, so that hundreds are built in seconds."""
    monkeypatch.setattr("edgekd.deploy.versions.listed_files", lambda folder: {"manifest.json"})
    monkeypatch.setattr("edgekd.files._flush", lambda path: None)


def build(bundle: Path, text: str, keep: int = 2) -> None:
    with (
        kept_versions(bundle, keep) as destination,
        atomic_folder(destination, lambda folder: {"manifest.json"}) as new,
    ):
        (new / "manifest.json").write_text(text)


def text_of(bundle: Path) -> str:
    return (bundle / "manifest.json").read_text()


def kept(bundle: Path) -> list[str]:
    return sorted(path.name for path in bundle.with_name(f"{bundle.name}.versions").iterdir())


def test_the_last_two_stay_and_a_rollback_goes_to_the_one_before(tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    for text in ("one", "two", "three"):
        build(bundle, text)
        assert text_of(bundle) == text
    assert kept(bundle) == ["2", "3"]
    assert roll_back(bundle).name == "2"
    assert text_of(bundle) == "two" and kept(bundle) == ["2", "3"]
    with pytest.raises(InputError, match="version 2, the oldest that was kept"):
        roll_back(bundle)
    build(bundle, "four")  # the withdrawn third goes, so that the next rollback finds the second
    assert kept(bundle) == ["2", "4"] and roll_back(bundle).name == "2"


def test_a_plain_bundle_becomes_the_first_version(tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    build(bundle, "plain", keep=1)
    assert not bundle.is_symlink()
    build(bundle, "new")
    assert text_of(bundle) == "new" and kept(bundle) == ["1", "2"]
    assert text_of(roll_back(bundle)) == "plain"


def test_what_has_no_versions_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has no versions, .* --keep 2"):
        roll_back(tmp_path / "nothing")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "b").symlink_to("elsewhere")
    with pytest.raises(InputError, match="a link to elsewhere, which edgekd has not made"):
        build(tmp_path / "b", "x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary.txt").write_text("x")
    monkeypatch.setattr("edgekd.deploy.versions.listed_files", lambda folder: None)
    with pytest.raises(InputError, match="not written by edgekd"):
        build(tmp_path / "mine", "x")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["diary.txt"]


@pytest.mark.parametrize("when", ["before", "at the switch"])
def test_a_folder_that_cannot_be_written_is_one_sentence(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path / "b", "first")

    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    if when == "before":
        monkeypatch.setattr(Path, "mkdir", refused)
    else:
        monkeypatch.setattr("edgekd.deploy.versions.replace_link", refused)
    with pytest.raises(InputError, match="cannot be written .Permission denied.; free space or give another output"):
        build(tmp_path / "b", "second") if when == "at the switch" else kept_versions(tmp_path / "c", 2).__enter__()
    monkeypatch.undo()
    assert text_of(tmp_path / "b") == "first"


def test_two_builds_do_not_write_versions_at_once(tmp_path: Path) -> None:
    with kept_versions(tmp_path / "b", 2), pytest.raises(InputError, match="another build is writing"):
        build(tmp_path / "b", "x")


def die_at(event: int, work: Callable[[], object]) -> int:
    """Run in a child that ends without a word at its n-th write; returns how it ended."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    seen = 0

    def hook(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        seen += name in WRITES
        if seen == event:
            os._exit(KILLED)

    try:
        sys.addaudithook(hook)
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


@pytest.mark.parametrize(("verb", "start"), [("build", "plain"), ("build", "rolled back"), ("rollback", "versions")])
def test_killed_at_every_write_it_is_the_old_or_the_new_one(verb: str, start: str, tmp_path: Path) -> None:
    seen = set()
    for event in range(1, 500):
        bundle = tmp_path / str(event) / "b"
        build(bundle, "old", keep=1 if start == "plain" else 2)
        if start == "rolled back":
            build(bundle, "withdrawn")
            roll_back(bundle)
        if verb == "rollback":
            build(bundle, "newer")
        code = die_at(event, lambda b=bundle: build(b, "new") if verb == "build" else roll_back(b))  # type: ignore[misc]
        assert code in (0, KILLED)
        found = text_of(bundle)
        seen.add(found)
        assert found in {"build": ("old", "new"), "rollback": ("newer", "old")}[verb]
        build(bundle, "next")
        assert text_of(bundle) == "next" and len(kept(bundle)) == 2
        assert sorted(path.name for path in bundle.parent.iterdir()) == ["b", "b.versions"]
        if start != "plain" and found != "new":
            assert text_of(roll_back(bundle)) == found
        if code == 0:
            break
    else:
        pytest.fail("the work did not end")
    assert len(seen) == 2
