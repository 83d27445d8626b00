"""A folder of results: nothing is overwritten or mixed, a stop loses nothing, a run that was stopped goes on."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_result import small_result

from edgekd.errors import InputError
from edgekd.runtime.results.formats import CocoIds
from edgekd.runtime.results.writer import ResultOptions, ResultWriter, unique_names
from edgekd.runtime.sources import Frame

NAMES = ("tank", "ship")


def frame(folder: Path, name: str) -> Frame:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((20, 30, 3), 90, np.uint8)
    cv2.imwrite(str(path), picture)
    return Frame(path.stem, path, picture)


def write(folder: Path, frames: list[Frame], key: str = "k", options: ResultOptions | None = None) -> ResultWriter:
    with ResultWriter(folder, NAMES, options, [each.path for each in frames], key) as writer:
        for each in frames:
            if not writer.is_kept(each.path):
                writer.add(each, small_result())
    return writer


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_pictures_of_one_stem_get_files_of_their_own(tmp_path: Path) -> None:
    frames = [frame(tmp_path, name) for name in ("a/x.jpg", "b/x.jpg", "a/y.jpg", "a/y.png", "a/Z.png", "b/z.png")]
    write(tmp_path / "out", frames)
    pictures = json.loads((tmp_path / "out/results.json").read_text())["pictures"]
    assert len({entry["name"].casefold() for entry in pictures}) == 6
    assert len(list((tmp_path / "out").glob("*_overlay.jpg"))) == 6


def test_names_stay_short_where_they_can() -> None:
    paths = [Path("a/x.jpg"), Path("b/x.jpg"), Path("a/y.jpg"), Path("a/y.png"), Path("a/w.png")]
    assert list(unique_names(paths).values()) == ["a_x_jpg", "b_x_jpg", "y_jpg", "y_png", "w"]


def test_the_folder_of_the_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is the folder of x.jpg"):
        write(tmp_path, [frame(tmp_path, "x.jpg")])
    assert files(tmp_path) == {"x.jpg"}


def test_a_second_run_replaces_all_of_the_first(tmp_path: Path) -> None:
    a, b = frame(tmp_path, "in/a.jpg"), frame(tmp_path, "in/b.jpg")
    write(tmp_path / "out", [a], options=ResultOptions(formats=("csv", "yolo", "coco")))
    (tmp_path / "out/notes.txt").write_text("mine")
    writer = write(tmp_path / "out", [b])
    assert writer.n_replaced == 8
    assert files(tmp_path / "out") == {"notes.txt", "results.json", "results.jsonl", "b_overlay.jpg", "b_masks.png"}


def test_a_file_that_no_run_has_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a_overlay.jpg").write_text("mine")
    with pytest.raises(InputError, match="was not written by a run"):
        write(tmp_path / "out", [frame(tmp_path, "in/a.jpg")])
    assert (tmp_path / "out/a_overlay.jpg").read_text() == "mine"


def test_a_stop_keeps_what_is_finished_and_the_run_goes_on(tmp_path: Path) -> None:
    frames = [frame(tmp_path, f"in/{name}.jpg") for name in "abc"]
    with (
        pytest.raises(KeyboardInterrupt),
        ResultWriter(tmp_path / "out", NAMES, None, [each.path for each in frames], "k") as stopped,
    ):
        stopped.add(frames[0], small_result())
        raise KeyboardInterrupt
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert [entry["name"] for entry in content["pictures"]] == ["a"] and content["complete"] is False
    with (tmp_path / "out/results.jsonl").open("a") as file:
        file.write('{"kind": "picture", "na')  # a kill in the middle of a line
    writer = write(tmp_path / "out", frames)
    assert writer.n_kept == 1
    content = json.loads((tmp_path / "out/results.json").read_text())
    assert [entry["name"] for entry in content["pictures"]] == ["a", "b", "c"] and content["complete"] is True


def test_a_stopped_run_with_other_options_or_a_changed_picture_starts_over(tmp_path: Path) -> None:
    a = frame(tmp_path, "in/a.jpg")
    for key, n_kept in (("k", 0), ("k", 1), ("other", 0)):
        with (
            pytest.raises(KeyboardInterrupt),
            ResultWriter(tmp_path / "out", NAMES, None, [a.path], key) as stopped,
        ):
            assert stopped.n_kept == n_kept
            if not stopped.is_kept(a.path):
                stopped.add(a, small_result())
            raise KeyboardInterrupt
    cv2.imwrite(str(a.path), np.zeros((40, 30, 3), np.uint8))
    writer = ResultWriter(tmp_path / "out", NAMES, None, [a.path], "other")
    assert not writer.is_kept(a.path)
    writer.finish()


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    with ResultWriter(tmp_path / "out", NAMES), pytest.raises(InputError, match="in use by another run"):
        ResultWriter(tmp_path / "out", NAMES)


def test_a_record_that_names_other_files_removes_none(tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("mine")
    (tmp_path / "out").mkdir()
    names = ["../victim.txt", str(victim), "labels/../../victim.txt", "..", "labels", ""]
    lines = [{"kind": "run", "format_version": 1, "key": "x"}, {"kind": "files", "files": names}, {"kind": "end"}]
    (tmp_path / "out/results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(tmp_path / "out", [frame(tmp_path, "in/a.jpg")])
    assert victim.read_text() == "mine"


def test_coco_files_are_loaded_and_scored_by_pycocotools(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    frames = [frame(tmp_path, f"in/{name}.jpg") for name in "ab"]
    ids = CocoIds({"a.jpg": 70, "b.jpg": 3}, {"tank": 5, "ship": 9})
    write(tmp_path / "out", frames, options=ResultOptions(formats=("coco",), coco_ids=ids))
    truth = coco.COCO(str(tmp_path / "out/coco.json"))
    results = truth.loadRes(str(tmp_path / "out/coco_results.json"))
    assert sorted(truth.getImgIds()) == [3, 70] and sorted(truth.getCatIds()) == [5, 9]
    for kind in ("bbox", "segm"):
        scored = evaluation.COCOeval(truth, results, kind)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
        assert scored.stats[0] == pytest.approx(1.0)


def test_a_picture_that_the_coco_file_does_not_list_is_refused(tmp_path: Path) -> None:
    options = ResultOptions(formats=("coco",), coco_ids=CocoIds({"a.jpg": 1}, {}))
    with pytest.raises(InputError, match="c.jpg is not among the pictures"):
        write(tmp_path / "out", [frame(tmp_path, "in/c.jpg")], options=options)
    assert not list((tmp_path / "out").glob("c_*"))
