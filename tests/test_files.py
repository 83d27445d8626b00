"""What is written is whole or not there, nothing of the user's is lost, and killed runs leave nothing for long."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgekd import files
from edgekd.errors import InputError
from edgekd.files import (
    atomic_file,
    atomic_folder,
    cache_folder,
    collect_leftovers,
    scratch_folder,
    write_bytes,
    write_text,
)


def listed(folder: Path) -> set[str] | None:
    return {"record", "data"} if (folder / "record").is_file() else None


def write_folder(target: Path, text: str) -> None:
    with atomic_folder(target, listed) as folder:
        (folder / "record").write_text(text)


def test_an_interrupted_write_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "b"
    write_folder(target, "old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, listed) as folder:
        (folder / "record").write_text("new")
        raise KeyboardInterrupt
    assert (target / "record").read_text() == "old"
    assert os.listdir(tmp_path) == ["b"]


def test_a_full_disk_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "b"
    write_folder(target, "old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="b cannot be written .No space left on device.; free space"):
        write_folder(target, "new")
    assert (target / "record").read_text() == "old"
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_folder_is_replaced_in_one_step_or_says_so(
    exchanges: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "b"
    write_folder(target, "old")
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    with caplog.at_level(logging.WARNING, "edgekd.files"):
        write_folder(target, "new")
    assert (target / "record").read_text() == "new"
    assert os.listdir(tmp_path) == ["b"]
    assert ("two renames" in caplog.text) is not exchanges


def test_what_a_user_put_there_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not written by edgekd"):
        write_folder(tmp_path, "new")
    target = tmp_path / "b"
    write_folder(target, "old")
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"'notes\.txt', which edgekd has not written"):
        write_folder(target, "new")
    with pytest.raises(InputError, match=r"thesis\.txt is a file"):
        write_folder(tmp_path / "thesis.txt", "new")
    assert (target / "notes.txt").read_text() == "mine"
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_file_that_comes_during_the_build_is_kept(tmp_path: Path) -> None:
    target = tmp_path / "b"
    write_folder(target, "old")
    with pytest.raises(InputError, match="would lose it"), atomic_folder(target, listed) as folder:
        (folder / "record").write_text("new")
        (target / "late.txt").write_text("mine")
    assert (target / "late.txt").read_text() == "mine"


def test_a_link_is_followed(tmp_path: Path) -> None:
    write_folder(tmp_path / "v1", "old")
    (tmp_path / "current").symlink_to("v1")
    write_folder(tmp_path / "current", "new")
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "v1" / "record").read_text() == "new"


def test_an_error_about_another_file_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source"), atomic_folder(tmp_path / "b", listed):
        (tmp_path / "source").read_bytes()


KILLED = """
import os, sys, time
from pathlib import Path
from edgekd.files import atomic_file, atomic_folder, scratch_folder
with atomic_folder(Path(sys.argv[1]) / "b", lambda folder: None) as a, scratch_folder("test") as b:
    with atomic_file(Path(sys.argv[1]) / "c.json"):
        (a / "record").write_text("half")
        print(b, flush=True)
        time.sleep(60)
"""


def test_leftovers_of_a_killed_run_go_with_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    user = tmp_path / ".b.edgekd-tmp-mine"
    user.mkdir()
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    scratch = Path(run.stdout.readline().strip())
    collect_leftovers(tmp_path)
    assert scratch.is_dir(), "what a living process holds stays"
    assert len(list(tmp_path.glob(".*.edgekd-tmp-????????*"))) == 2
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    assert scratch.is_dir()
    write_folder(tmp_path / "b", "new")
    with scratch_folder("test"):
        pass
    assert sorted(os.listdir(tmp_path)) == [user.name, "b", "temporary"]
    assert os.listdir(temporary) == []


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_text(path, "old")
    path.chmod(0o600)
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        assert temporary.suffix == ".json"
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    (tmp_path / "link.json").symlink_to(path)
    write_text(tmp_path / "link.json", "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["a.json"]


def test_a_device_stays_a_device() -> None:
    write_bytes(Path(os.devnull), b"gone")
    assert Path(os.devnull).is_char_device()


@pytest.mark.parametrize(
    ("path", "words"),
    [("/proc/x/y.json", "cannot be written"), ("a" * 300, "File name too long"), ("/dev/full", "No space")],
)
def test_what_cannot_be_written_is_one_sentence(path: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words) as caught:
        write_bytes(tmp_path / path, b"x" * 100_000)
    assert "\n" not in str(caught.value)


def test_one_variable_moves_the_whole_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("EDGEKD_CACHE", raising=False)
    assert cache_folder("kernels") == tmp_path / "edgekd" / "kernels"
    monkeypatch.setenv("EDGEKD_CACHE", str(tmp_path / "mine"))
    assert cache_folder("kernels") == tmp_path / "mine" / "kernels"
    assert cache_folder() == tmp_path / "mine"
