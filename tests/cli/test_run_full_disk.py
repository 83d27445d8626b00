"""`edgekd run` on a disk that is really full: one sentence, and everything that was finished before it is kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import cv2
import pytest
from perfect_chain import PerfectChain, draw
from typer.testing import CliRunner, Result

from edgekd.cli.main import app
from edgekd.errors import InputError
from edgekd.runtime import stream_files
from edgekd.runtime.chain import Chain
from edgekd.runtime.journal import append_line, open_lines


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["run", "b", *map(str, arguments)])


def mount(folder: Path, size: str, *more: str) -> bool:
    words = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *more]), "edgekd", str(folder)]
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file system of 24 KiB."""
    monkeypatch.setattr(Chain, "open", lambda folder, n_threads, public_key: nullcontext(PerfectChain()))
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = mount(folder, "24k")
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("a file system cannot be mounted here: this needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def write_video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (256, 192))
    for index in range(60):
        picture, _ = draw((192, 256), 12, index)
        writer.write(picture)
    writer.release()
    return path


def whole_lines(path: Path) -> int:
    return [json.loads(line)["frame"] for line in path.read_text().splitlines()][-1] + 1


def test_a_mosaic_goes_on_when_there_is_space(tmp_path: Path, disk: Path) -> None:
    cv2.imwrite(str(tmp_path / "town.png"), draw((900, 1200), 300)[0])
    words = (tmp_path / "town.png", "--no-overlays", "--no-masks", "-o")
    first = run(*words, disk)
    assert isinstance(first.exception, InputError)
    assert "town.tiles.jsonl cannot be written (No space left on device)" in str(first.exception)
    assert mount(disk, "4m", "remount")
    second = run(*words, disk)
    run(*words, tmp_path / "whole")
    assert second.exit_code == 0 and "finished tiles; the run goes on from there" in second.stderr
    [found], [wanted] = (json.loads((d / "results.json").read_text())["pictures"] for d in (disk, tmp_path / "whole"))
    assert found["objects"] == wanted["objects"] and len(found["objects"]) > 50


def test_lines_of_a_stream_stay_whole(tmp_path: Path, disk: Path) -> None:
    done = run(write_video(tmp_path / "a.avi"), "--reuse-masks", "0.9", "--no-overlays", "-o", disk)
    assert isinstance(done.exception, InputError)
    assert "a.jsonl cannot be written (No space left on device); free space" in str(done.exception)
    n = whole_lines(disk / "a.jsonl")
    assert 3 < n < 60 and f"n_results {n}" in done.stdout


def test_the_video_of_a_stream_ends_while_there_is_room_for_its_index(
    tmp_path: Path, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mount(disk, "640k", "remount")
    monkeypatch.setattr(stream_files, "RESERVE_BYTES", 512 << 10)
    done = run(write_video(tmp_path / "a.avi"), "--reuse-masks", "0.9", "-o", disk)
    assert isinstance(done.exception, InputError)
    assert "a_overlay.mp4 cannot go on: its disk has 0." in str(done.exception)
    video = cv2.VideoCapture(str(disk / "a_overlay.mp4"))
    n = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    assert n == whole_lines(disk / "a.jsonl") and 3 < n < 60
    assert all(video.read()[0] for _ in range(n))
    video.release()


def test_a_line_that_fits_in_part_is_taken_back(disk: Path) -> None:
    with open_lines(disk / "a.jsonl") as file, pytest.raises(OSError, match="No space"):
        for _ in range(10):
            append_line(file, "x" * 4997)  # two quotes and a line feed make 5,000
    assert (disk / "a.jsonl").stat().st_size == 20_000
