"""What Ultralytics trains on here: the labels it would read, the runtime's pixels, and no code from files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from tiny_data import SIDE_PX, write_tiny_dataset
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset

from edgekd.data.check import read_dataset
from edgekd.errors import DataError
from edgekd.runtime.sources import read_picture
from edgekd.train.distill.dataset import LabelledDataset, describe_dataset

pytestmark = pytest.mark.filterwarnings("ignore")


def settings(**changes: Any) -> Any:
    return get_cfg(overrides={"imgsz": SIDE_PX, "task": "detect", **changes})


def dataset_of(path: Path, train: bool = False, **changes: Any) -> LabelledDataset:
    labels = read_dataset(path)["train"]
    data = {"names": dict(enumerate(labels.class_names)), "nc": 2, "channels": 3}
    return LabelledDataset(labels, settings(**changes), data, train, batch=2, stride=32)


@pytest.mark.parametrize("outlined", ["no", "one", "all"])
def test_labels_and_pictures_are_those_that_ultralytics_reads(tmp_path: Path, outlined: str) -> None:
    path = write_tiny_dataset(tmp_path)
    for index in {"no": [], "one": [3], "all": range(6)}[outlined]:
        outlines = "0 .1 .1 .5 .1 .5 .6\n1 .2 .2 .4 .2 .4 .3 .3 .5\n"
        (tmp_path / "labels" / "train" / f"{index}.txt").write_text(outlines)
    (tmp_path / "labels" / "train" / "4.txt").write_text("")
    ours = dataset_of(path, fraction=0.9)
    data = {"names": {0: "red", 1: "blue"}, "nc": 2, "channels": 3}
    theirs = YOLODataset(
        img_path=str(tmp_path / "images" / "train"), imgsz=SIDE_PX, batch_size=2, augment=False, hyp=settings(),
        rect=True, stride=32, pad=0.5, task="detect", data=data,
    )  # fmt: skip
    assert ours.im_files == theirs.im_files
    np.testing.assert_array_equal(ours.batch_shapes, theirs.batch_shapes)
    for index, (a, b) in enumerate(zip(ours.labels, theirs.labels, strict=True)):
        assert a["im_file"] == b["im_file"]
        np.testing.assert_array_equal(a["cls"], b["cls"])
        np.testing.assert_allclose(a["bboxes"], b["bboxes"], atol=1e-6)
        for x, y in zip(a["segments"], b["segments"], strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)
        np.testing.assert_array_equal(ours.load_image(index)[0], theirs.load_image(index)[0])
        np.testing.assert_array_equal(ours[index]["img"].numpy(), theirs[index]["img"].numpy())


def test_mosaics_and_batches(tmp_path: Path) -> None:
    ours = dataset_of(write_tiny_dataset(tmp_path), train=True, mosaic=1.0)
    shapes = {tuple(ours[index]["img"].shape) for index in range(len(ours))}
    assert shapes == {(3, SIDE_PX, SIDE_PX)}
    assert 0 < len(ours.buffer) <= ours.max_buffer_length
    assert sum(picture is not None for picture in ours.ims) == len(set(ours.buffer))


def test_an_11_bit_picture_is_as_bright_in_training_as_at_run_time(tmp_path: Path) -> None:
    """It reached the network with a maximum of 7 once."""
    path = write_tiny_dataset(tmp_path)
    deep = np.random.default_rng(0).integers(0, 2**11, (SIDE_PX, SIDE_PX, 3)).astype(np.uint16)
    deep[0, 0] = 2047
    file = tmp_path / "images" / "train" / "0.png"
    cv2.imwrite(str(file), deep)
    pixels, original, resized = dataset_of(path).load_image(0)
    assert pixels.max() == 255 and original == resized == (SIDE_PX, SIDE_PX)
    np.testing.assert_array_equal(pixels, read_picture(file))


def test_no_code_runs_from_what_lies_beside_the_pictures(tmp_path: Path) -> None:
    path = write_tiny_dataset(tmp_path / "data")
    for cache in (tmp_path / "data" / "labels" / "train.cache", tmp_path / "data" / "labels" / "val.cache"):
        np.save(cache.with_suffix(".npy"), np.array(_Bomb(tmp_path / "ran"), dtype=object), allow_pickle=True)
        cache.with_suffix(".npy").rename(cache)
    np.save(tmp_path / "data" / "images" / "train" / "0.npy", np.zeros((SIDE_PX, SIDE_PX, 3), np.uint8))
    assert dataset_of(path).load_image(0)[0].any()
    assert not (tmp_path / "ran").exists()


class _Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_the_bomb_is_a_bomb(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(_Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_ultralytics_sees_a_description_without_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative `path` misses when resolved by Ultralytics, and then it ran `download`."""
    path = write_tiny_dataset(tmp_path / "data")
    content = yaml.safe_load(path.read_text())
    content |= {"path": ".", "download": f"from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()"}
    path.write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    splits, data = describe_dataset(path, tmp_path / "run")
    seen = yaml.safe_load(Path(data["yaml_file"]).read_text())
    assert set(seen) == {"path", "train", "val", "names"} and seen["names"] == {0: "red", 1: "blue"}
    from ultralytics.data.utils import check_det_dataset

    checked = check_det_dataset(data["yaml_file"])
    listed = Path(checked["val"]).read_text().split("\n")
    assert listed[:-1] == [str(picture.path) for picture in splits["val"].pictures]
    assert not (tmp_path / "ran").exists()


def test_a_run_with_download_trains_and_runs_nothing(tmp_path: Path) -> None:
    from edgekd.data.read import read_labels
    from edgekd.models.yolo11n import facts_of, load_detector
    from edgekd.train.distill.job import DistillJob, distill
    from edgekd.train.distill.recipes import Recipe, Schedule

    path = write_tiny_dataset(tmp_path / "data", n_pictures=2)
    text = path.read_text().replace(f"path: {tmp_path / 'data'}", "path: .")
    path.write_text(text + f"download: from pathlib import Path; Path({str(tmp_path / 'ran')!r}).touch()\n")
    recipe = Recipe(schedule=Schedule(epochs=1, imgsz=SIDE_PX, batch=2))
    distill(DistillJob(data=path, student="yolo11n.yaml", output=tmp_path / "run", recipe=recipe, n_threads=1))
    trained = load_detector(tmp_path / "run" / "weights" / "best.pt")
    longer_px = max(read_labels(path).pictures[0].size_px)
    assert facts_of(trained).trained_scale == pytest.approx(SIDE_PX / longer_px)
    assert not (tmp_path / "ran").exists()


def test_a_picture_that_is_not_the_labelled_one_stops_training(tmp_path: Path) -> None:
    ours = dataset_of(write_tiny_dataset(tmp_path))
    cv2.imwrite(ours.im_files[0], np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(DataError, match="has 9x8 px and its label says 64x64"):
        ours.load_image(0)
    Path(ours.im_files[1]).write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        ours.load_image(1)
