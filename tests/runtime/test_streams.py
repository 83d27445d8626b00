"""A camera on the loopback that is too fast, stalls, is cut and comes back; files; a folder being filled."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from mjpeg_server import MjpegServer

from edgekd.errors import InputError
from edgekd.runtime.streams import AGES_KEPT, Stream, StreamCounts, StreamOptions, is_live, stream_name, summary
from edgekd.runtime.watch import WatchedFolder, watch

PATIENT = StreamOptions(stall_s=0.5, give_up_s=20)


def write_video(path: Path, n: int = 12) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for index in range(n):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("source", "live", "name"),
    [
        ("0", True, "camera0"),
        ("rtsp://user:word@10.0.0.2/live", True, "stream"),
        ("http://10.0.0.2/a.mjpg", True, "stream"),
        ("v4l2src ! videoconvert ! appsink", True, "stream"),
        ("films/a.mp4", False, "a"),
    ],
)
def test_sources_are_told_apart(source: str, live: bool, name: str) -> None:
    assert is_live(source) is live and stream_name(source) == name


def test_a_slow_reader_gets_the_latest_frame_and_the_rest_is_counted() -> None:
    with MjpegServer() as server, Stream(server.address, PATIENT) as stream:
        frames = []
        for frame in stream:
            time.sleep(0.1)
            frames.append(frame)
            stream.counts.add_result(frame.age_ms())
            if len(frames) == 5:
                break
    steps = np.diff([frame.index for frame in frames])
    assert frames[0].picture.shape == (96, 128, 3)
    assert (steps >= 1).all() and steps.max() > 1
    assert stream.counts.n_dropped >= steps.sum() - len(steps)
    assert min(stream.counts.ages_ms) >= 100


@pytest.mark.parametrize("trouble", ["stall", "cut", "garbage"])
def test_a_stream_that_stops_is_opened_again(trouble: str) -> None:
    with MjpegServer() as server, Stream(server.address, PATIENT) as stream:
        frames = iter(stream)
        next(frames)
        server.mode = trouble
        threading.Timer(1.5, setattr, (server, "mode", "send")).start()
        deadline = time.monotonic() + 15
        while stream.counts.n_cuts == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert stream.counts.n_cuts >= 1
        before = stream.counts.n_read
        while stream.counts.n_read < before + 5 and time.monotonic() < deadline:
            next(frames)
        assert stream.counts.n_read >= before + 5


def test_a_stream_that_stays_silent_ends_in_one_sentence() -> None:
    with MjpegServer() as server, Stream(server.address, StreamOptions(stall_s=0.3, give_up_s=1.0)) as stream:
        frames = iter(stream)
        next(frames)
        server.mode = "cut"
        with pytest.raises(InputError, match=r"127.0.0.1:\d+/camera.mjpg sent no frame for 1 s"):
            for _ in frames:
                pass


def test_a_stream_that_never_sends_a_picture_is_one_sentence() -> None:
    with MjpegServer() as server:
        server.mode = "garbage"
        with pytest.raises(InputError, match=r"127.0.0.1:\d+/camera.mjpg cannot be opened"):
            Stream(server.address, StreamOptions(stall_s=0.5))


def test_what_is_not_there_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="camera 97 cannot be opened"):
        Stream("97")
    assert capfd.readouterr().err == ""  # OpenCV adds no lines of its own
    with pytest.raises(InputError, match="http://127.0.0.1:9/x cannot be opened"):
        Stream("http://me:secret@127.0.0.1:9/x", StreamOptions(stall_s=0.5))
    with pytest.raises(InputError, match="built without GStreamer|videotestsrc ! nothing cannot be opened"):
        Stream("videotestsrc ! nothing")
    (tmp_path / "a.mp4").write_text("not a video")
    with pytest.raises(InputError, match=r"a.mp4 cannot be opened"):
        Stream(str(tmp_path / "a.mp4"))
    with pytest.raises(InputError, match="expected seconds above 0"):
        StreamOptions(stall_s=0)


def test_a_file_loses_no_frame(tmp_path: Path) -> None:
    with Stream(str(write_video(tmp_path / "a.avi"))) as stream:
        frames = []
        for frame in stream:
            time.sleep(0.01)
            frames.append(frame)
    assert [frame.index for frame in frames] == list(range(12)) and stream.counts.n_dropped == 0
    assert [round(float(frame.picture.mean()) / 10) for frame in frames] == list(range(12))
    assert stream.fps == 10


def test_a_reader_that_leaves_early_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())  # a reader of another test may still wait for its network
    with Stream(str(write_video(tmp_path / "a.avi"))) as stream:
        next(iter(stream))
    assert not any(thread.name == "edgekd-stream" for thread in set(threading.enumerate()) - before)


def test_the_summary_counts() -> None:
    counts = StreamCounts(n_read=10, n_dropped=6, n_cuts=1)
    for age_ms in (10.0, 20.0, 30.0, 40.0):
        counts.add_result(age_ms)
    numbers = summary(counts, 2.0)
    assert (numbers["n_results"], numbers["results_per_second"], numbers["age_p50_ms"]) == (4, 2.0, 25.0)
    assert summary(StreamCounts(), 0.0)["n_results"] == 0


def test_a_camera_that_runs_for_ever_keeps_a_bounded_number_of_ages() -> None:
    counts = StreamCounts()
    for age_ms in range(AGES_KEPT + 10):
        counts.add_result(float(age_ms))
    assert len(counts.ages_ms) == AGES_KEPT and counts.ages_ms[0] == 10.0
    assert summary(counts, 1.0)["n_results"] == AGES_KEPT + 10


def test_a_folder_gives_each_whole_file_once(tmp_path: Path) -> None:
    picture = cv2.imencode(".png", np.full((8, 9, 3), 7, np.uint8))[1].tobytes()
    (tmp_path / "a.png").write_bytes(picture)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(picture)

    def fill() -> None:
        with (tmp_path / "b.png").open("wb") as file:  # written slowly
            for part in (picture[:20], picture[20:]):
                file.write(part)
                file.flush()
                time.sleep(0.2)
        (tmp_path / "bad.png").write_text("not a picture")

    thread = threading.Thread(target=fill)
    thread.start()
    notes: list[str] = []
    folder = WatchedFolder(tmp_path, notes.append, quiet_s=2.0)
    with folder:
        frames = list(folder)
    thread.join()
    names = [frame.name for frame in frames]
    assert sorted(names) == ["a.png", "b.png"] and folder.counts.n_read == 3 and folder.counts.n_dropped == 1
    assert "bad.png is not a picture" in notes[0]
    with pytest.raises(InputError, match="is not a folder"):
        next(watch(tmp_path / "a.png"))
