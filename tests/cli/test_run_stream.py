"""`edgekd run` on streams: lines, video, numbers, Ctrl-C, and one sentence for what is not there."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np
import pytest
from mjpeg_server import MjpegServer
from perfect_chain import PerfectChain
from typer.testing import CliRunner, Result

from edgekd.cli.main import app
from edgekd.errors import InputError
from edgekd.runtime.chain import Chain


def run(monkeypatch: pytest.MonkeyPatch, chain: PerfectChain, *arguments: object) -> Result:
    monkeypatch.setattr(Chain, "open", lambda folder, n_threads, public_key: nullcontext(chain))
    return CliRunner().invoke(app, ["run", "b", *map(str, arguments)])


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_tracked_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trackers")
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    for index in range(8):
        picture = np.full((96, 128, 3), 20, np.uint8)
        picture[30:60, 10 + 4 * index : 50 + 4 * index] = 255
        writer.write(picture)
    writer.release()
    done = run(monkeypatch, PerfectChain(), tmp_path / "a.avi", "-o", tmp_path / "out", "--track")
    assert done.exit_code == 0, done.output
    assert "n_read 8, n_results 8, n_dropped 0" in done.stdout and "age_p95_ms" in done.stdout
    rows = lines(tmp_path / "out/a.jsonl")
    assert [row["frame"] for row in rows] == list(range(8))
    assert {row["objects"][0]["track_id"] for row in rows[2:]} == {rows[2]["objects"][0]["track_id"]}  # type: ignore[index]
    video = cv2.VideoCapture(str(tmp_path / "out/a_overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 8
    video.release()


def test_ctrl_c_ends_a_camera_with_everything_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with MjpegServer() as server:
        done = run(monkeypatch, PerfectChain(stop_after=4), server.address, "-o", tmp_path / "out")
    assert done.exit_code == 0 and "stopped; everything up to here is written" in done.stderr
    assert "n_results 4" in done.stdout
    rows = lines(tmp_path / "out/stream.jsonl")
    assert len(rows) == 4 and len(rows[0]["objects"]) == 1 and rows[0]["age_ms"] >= 0  # type: ignore[arg-type,operator]
    video = cv2.VideoCapture(str(tmp_path / "out/stream_overlay.mp4"))
    assert int(video.get(cv2.CAP_PROP_FRAME_COUNT)) == 4
    video.release()


def test_a_watched_folder_until_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"in/{name}.png"), np.random.default_rng(0).integers(0, 99, (50, 60, 3), np.uint8))
    done = run(monkeypatch, PerfectChain(stop_after=2), tmp_path / "in", "--watch", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(row["name"] for row in lines(tmp_path / "out/in.jsonl")) == ["a.png", "b.png"]  # type: ignore[type-var]


def test_what_cannot_be_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, PerfectChain(), "97", "-o", tmp_path)
    assert done.exit_code == 1 and "camera 97 cannot be opened" in str(done.exception)
    done = run(monkeypatch, PerfectChain(), "97", "98", "-o", tmp_path)
    assert done.exit_code == 1 and "expected one stream alone" in str(done.exception)
    done = run(monkeypatch, PerfectChain(), "97", "--min-area", "5", "-o", tmp_path)
    assert done.exit_code == 1 and "min_area was given for a stream" in str(done.exception)


@pytest.mark.parametrize("words", [("--json", "x.json"), ("--formats", "csv"), ("--preview",)])
def test_files_of_pictures_are_refused_for_a_stream(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run(monkeypatch, PerfectChain(), tmp_path / "a.avi", "-o", tmp_path / "out", "--track", *words)
    assert isinstance(done.exception, InputError)
    argument = {"--json": "json_file"}.get(words[0], words[0].removeprefix("--"))
    assert str(done.exception).startswith(f"{argument} was given for a stream")


def test_masks_of_unmoved_objects_are_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (128, 96))
    picture = np.full((96, 128, 3), 20, np.uint8)
    picture[30:60, 10:50] = 255
    for _ in range(5):
        writer.write(picture)
    writer.release()
    done = run(monkeypatch, PerfectChain(), tmp_path / "a.avi", "-o", tmp_path / "out", "--reuse-masks", "0.9")
    assert done.exit_code == 0, done.output
    assert "n_masks 5, n_masks_reused 4" in done.stdout
    assert len({json.dumps(row["objects"]) for row in lines(tmp_path / "out/a.jsonl")}) == 1
    done = run(monkeypatch, PerfectChain(), tmp_path / "a.avi", "--reuse-masks", "0.9", "--boxes-only")
    assert "reuse_masks was given with boxes_only" in str(done.exception)
