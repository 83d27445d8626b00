"""A tiled picture gives the objects of the whole one; interrupted, resumed and damaged runs keep what they have."""

from __future__ import annotations

import os
import tracemalloc
from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from perfect_chain import PerfectChain, draw

from edgekd.errors import InputError
from edgekd.runtime.journal import Journal, append_line
from edgekd.runtime.mosaic import MosaicOptions, TileReport, collect, journal_key, run_mosaic
from edgekd.runtime.tiles import TileOptions, Window
from edgekd.runtime.windows import ArrayWindows
from edgekd.types import ChainResult, UInt8Array

OPTIONS = MosaicOptions(tiles=TileOptions(tile_px=128, object_px=32))


class BrokenWindows(ArrayWindows):
    """Cannot read what touches the pixel at (300, 200)."""

    def read(self, window: Window) -> UInt8Array:
        left, top, right, bottom = window
        if left <= 300 < right and top <= 200 < bottom:
            raise InputError(f"big.tif: the window at {left},{top} cannot be read; copy the file again")
        return super().read(window)


def run(picture: np.ndarray, options: MosaicOptions = OPTIONS, **rest: object) -> ChainResult:
    return collect(run_mosaic(PerfectChain(), ArrayWindows(picture), options, **rest), picture.shape[:2])  # type: ignore[arg-type]


def assert_same(a: ChainResult, b: ChainResult) -> None:
    assert len(a) == len(b)
    order_a, order_b = np.lexsort(a.detections.xyxy.T), np.lexsort(b.detections.xyxy.T)
    np.testing.assert_array_equal(a.detections.xyxy[order_a], b.detections.xyxy[order_b])
    for i, j in zip(order_a, order_b, strict=True):
        np.testing.assert_array_equal(a.masks.full(i), b.masks.full(j))


@pytest.mark.parametrize("workers", [1, 3])
def test_tiles_give_the_objects_of_the_whole_picture(workers: int) -> None:
    picture, _ = draw((500, 700), 80)
    whole = PerfectChain()(picture)
    options = MosaicOptions(tiles=OPTIONS.tiles, workers=workers)
    assert_same(run(picture, options), whole)
    boxes = run(picture, MosaicOptions(tiles=OPTIONS.tiles, masks=False, workers=workers))
    np.testing.assert_array_equal(np.sort(boxes.detections.xyxy, 0), np.sort(whole.detections.xyxy, 0))
    assert len(boxes.masks) == len(boxes) and boxes.masks.areas_px().sum() == 0


def test_a_long_object_across_many_tiles_is_one_mask() -> None:
    picture = np.full((400, 900, 3), 10, np.uint8)
    picture[180:220, 20:880] = 255
    picture[20:380, 400:440] = 255
    picture[0, 0] = 11
    assert_same(run(picture), PerfectChain()(picture))


@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (100, 100), (40, 129)])
def test_extreme_sizes_run(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 50, (*size, 3), np.uint8)
    object_size = size[0] // 2 + 1, size[1] // 2 + 1
    picture[: object_size[0], : object_size[1]] = np.random.default_rng(1).integers(201, 256, (*object_size, 3))
    assert_same(run(picture), PerfectChain()(picture))


def test_tiles_of_one_colour_are_not_run() -> None:
    chain, states = PerfectChain(), []
    picture = np.zeros((400, 400, 3), np.uint8)
    picture[10:40, 10:40] = 255
    picture[0, 0] = 7
    found = collect(
        run_mosaic(chain, ArrayWindows(picture), OPTIONS, report=lambda t: states.append(t.state)), (400, 400)
    )  # type: ignore[arg-type]
    assert len(found) == 1 and chain.calls == [1]
    assert states.count("run") == 1 and states.count("empty") == 15


def test_a_broken_window_is_reported_and_the_rest_is_kept() -> None:
    picture, _ = draw((500, 700), 80)
    reports: list[TileReport] = []
    found = collect(
        run_mosaic(PerfectChain(), BrokenWindows(picture), OPTIONS, report=reports.append),  # type: ignore[arg-type]
        (500, 700),
    )
    broken = [tile for tile in reports if tile.state == "broken"]
    assert 1 <= len(broken) <= 4 and "cannot be read" in broken[0].reason
    whole = PerfectChain()(picture)
    far = np.abs(whole.detections.xyxy[:, :2] - [300, 200]).max(1) > 200
    kept = {tuple(box) for box in found.detections.xyxy}
    assert {tuple(box) for box in whole.detections.xyxy[far]} <= kept


@pytest.mark.parametrize("stop_after", [1, 9, 20])
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, stop_after: int) -> None:
    picture, _ = draw((500, 700), 80)
    path = tmp_path / "big.tiles.jsonl"
    options = MosaicOptions(tiles=OPTIONS.tiles, workers=1)
    with Journal(path, "key") as journal, pytest.raises(KeyboardInterrupt):
        collect(run_mosaic(PerfectChain(stop_after=stop_after), ArrayWindows(picture), options, journal), (500, 700))  # type: ignore[arg-type]
    path.write_bytes(path.read_bytes() + b'{"tile":99,"xyxy":[[1')  # a line that the interrupt cut
    chain = PerfectChain()
    with Journal(path, "key") as journal:
        assert journal.n_kept == stop_after and not journal.started_over
        resumed = collect(run_mosaic(chain, ArrayWindows(picture), options, journal), (500, 700))  # type: ignore[arg-type]
        journal.discard()
    assert chain.calls[0] == 35 - stop_after
    assert not path.exists()
    assert_same(resumed, run(picture))


def test_a_journal_of_something_else_is_replaced_and_says_so(tmp_path: Path) -> None:
    picture, _ = draw((300, 300))
    with Journal(tmp_path / "j.jsonl", "one") as journal:
        run(picture, journal=journal)
    with Journal(tmp_path / "j.jsonl", "one") as journal:
        assert journal.n_kept == 9
    with Journal(tmp_path / "j.jsonl", "two") as journal:
        assert journal.n_kept == 0 and journal.started_over
    (tmp_path / "text.jsonl").write_text("not a journal\n")
    with Journal(tmp_path / "text.jsonl", "one") as journal:
        assert journal.n_kept == 0 and journal.started_over


def test_the_key_names_picture_and_options(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"1")
    chain: object = PerfectChain()
    key = journal_key(chain, path, OPTIONS)  # type: ignore[arg-type]
    assert key == journal_key(chain, path, MosaicOptions(tiles=OPTIONS.tiles, workers=7))  # type: ignore[arg-type]
    assert key != journal_key(chain, path, MosaicOptions())  # type: ignore[arg-type]
    path.write_bytes(b"22")
    assert key != journal_key(chain, path, OPTIONS)  # type: ignore[arg-type]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_disk_is_one_sentence_and_keeps_what_was_written(tmp_path: Path) -> None:
    picture, _ = draw((300, 300))
    journal = Journal(tmp_path / "j.jsonl", "key")
    seen = [0]

    def append(file: FileIO, content: dict[str, object]) -> int:
        seen[0] += 1
        if seen[0] > 3:
            with open("/dev/full", "wb", buffering=0) as full:
                full.write(b"x")
        return append_line(file, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekd.runtime.journal.append_line", append)
        with pytest.raises(InputError, match="No space left on device.*3 tiles are kept"):
            run(picture, journal=journal)
    journal.close()
    with Journal(tmp_path / "j.jsonl", "key") as again:
        assert again.n_kept == 3
        assert_same(run(picture, journal=again), run(picture))


def test_memory_does_not_follow_the_picture() -> None:
    """Ten times the rows of tiles, the same peak beside the objects themselves."""

    class Drawn(ArrayWindows):
        def __init__(self, height: int) -> None:
            self._size = height, 600

        @property
        def size_px(self) -> tuple[int, int]:
            return self._size

        def read(self, window: Window) -> UInt8Array:
            left, top, right, bottom = window
            tile = np.full((bottom - top, right - left, 3), 9, np.uint8)
            tile[0, 0] = 10
            y, x = np.ogrid[top:bottom, left:right]
            tile[(y % 96 < 20) & (x % 96 < 20)] = 255
            return tile

    peaks = []
    for height in (960, 9600):
        tracemalloc.start()
        n = sum(len(row) for row in run_mosaic(PerfectChain(), Drawn(height), OPTIONS))  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n == 7 * height // 96
    assert peaks[1] < 2 * peaks[0]


def test_no_worker_is_one_sentence() -> None:
    with pytest.raises(InputError, match="workers is 0"):
        MosaicOptions(workers=0)
