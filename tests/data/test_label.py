"""Boxes become masks and masks a data set that every tool reads; what is doubtful is shown, what is lost is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edgekd.data.label import MaskedSet, Thresholds, doubtful, label_pictures, mask_boxes
from edgekd.data.labels import LabelledSet
from edgekd.data.masked_set import write_masked
from edgekd.data.read import read_labels
from edgekd.errors import DataError, InputError
from edgekd.types import ChainResult, Detections, Masks

SIDE = 80


class FakeChain:
    """Masks every box with what is bright in it; the estimates are 0.9, or what it was made with."""

    manifest = SimpleNamespace(pipeline=SimpleNamespace(class_names=("bright",)))

    def __init__(self, *estimates: float) -> None:
        self.estimates = estimates or (0.9,)

    def __call__(self, picture: np.ndarray, options: Any = None, boxes: np.ndarray | None = None) -> ChainResult:
        found = np.array([[10, 10, 30, 30]], np.float32) if boxes is None else boxes
        windows = np.concatenate([np.floor(found[:, :2]), np.ceil(found[:, 2:])], 1).astype(np.int32)
        crops = [picture[top:bottom, left:right, 0] > 128 for left, top, right, bottom in windows]
        masks = Masks((SIDE, SIDE), windows, crops, np.resize(np.array(self.estimates, np.float32), len(found)))
        return ChainResult(Detections.from_boxes(found), masks, ("bright",), {})


def chain_of(*estimates: float) -> Any:
    return FakeChain(*estimates)


def boxes_of(folder: Path, n: int = 4) -> LabelledSet:
    """n pictures with a bright square (10..30) and a disc, each with its box."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index in range(n):
        picture = np.full((SIDE, SIDE, 3), 20, np.uint8)
        picture[10:30, 10:30] = 220
        cv2.circle(picture, (55, 55), 12, (220, 220, 220), -1)
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        (folder / "labels" / f"{index}.txt").write_text("0 .25 .25 .25 .25\n1 .694 .694 .3125 .3125")
    (folder / "classes.txt").write_text("square\ndisc")
    return read_labels(folder)


def with_boxes(labels: LabelledSet, rows: list[list[float]]) -> LabelledSet:
    return replace(labels, pictures=(replace(labels.pictures[0], xyxy=np.array(rows, np.float32)),))


def test_given_boxes_keep_their_classes_and_get_masks(tmp_path: Path) -> None:
    masked = mask_boxes(chain_of(), boxes_of(tmp_path))
    assert (masked.n_accepted, masked.n_shown, masked.n_dropped, masked.n_outside) == (8, 0, 0, 0)
    picture = masked.labels.pictures[0]
    assert [picture.name_of(index) for index in range(2)] == ["square", "disc"]
    square = picture.mask(0)
    assert square.sum() == 400 and square[10:30, 10:30].all()
    assert picture.area_px[1] == pytest.approx(np.pi * 12**2, rel=0.1)


def test_the_score_is_the_estimate_and_no_more_than_the_overlap_of_boxes(tmp_path: Path) -> None:
    labels = boxes_of(tmp_path, 1)
    loose = with_boxes(labels, [[0, 0, 40, 40], labels.pictures[0].xyxy[1].tolist()])  # four times what is in it
    wide = Thresholds(0.8, 0.2)
    masked = mask_boxes(chain_of(), loose, wide)
    assert masked.scores[loose.pictures[0].path].tolist() == pytest.approx([0.25, 0.9], abs=0.02)
    assert (masked.n_accepted, masked.n_shown, masked.n_dropped) == (1, 1, 0)
    ((_, index, score),) = doubtful(masked, wide)
    assert index == 0 and score == pytest.approx(0.25)
    dropped = mask_boxes(chain_of(), loose, Thresholds(0.8, 0.5))
    assert dropped.n_dropped == 1 and dropped.incomplete == (loose.pictures[0].path,)
    assert dropped.labels.pictures[0].class_id.tolist() == [1]


def test_boxes_outside_are_counted_and_empty_masks_dropped(tmp_path: Path) -> None:
    labels = boxes_of(tmp_path, 1)
    masked = mask_boxes(chain_of(), with_boxes(labels, [[90, 90, 99, 99], [10, 10, 30, 30]]))
    assert (masked.n_outside, masked.n_accepted) == (1, 1) and len(masked.incomplete) == 1
    with pytest.raises(DataError, match="none of 1 masks reaches the score 0.5"):
        mask_boxes(chain_of(), with_boxes(labels, [[90, 90, 99, 99], [35, 35, 40, 40]]))


def test_the_detector_finds_boxes_where_none_are_given(tmp_path: Path) -> None:
    paths = [picture.path for picture in boxes_of(tmp_path).pictures]
    masked = label_pictures(chain_of(), paths, None, Thresholds())  # type: ignore[arg-type]
    assert masked.labels.class_names == ("bright",) and masked.n_accepted == 4
    assert masked.labels.pictures[0].size_px == (SIDE, SIDE)


def test_thresholds_have_an_order() -> None:
    with pytest.raises(InputError, match="expected 0 <= drop <= accept <= 1"):
        Thresholds(0.4, 0.5)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    masked = mask_boxes(chain_of(0.9, 0.6), boxes_of(tmp_path / "boxes"))
    report = write_masked(masked, Thresholds(), tmp_path / "out", 0.25)
    assert (report["n_accepted"], report["n_to_look_at"], report["n_dropped"]) == (4, 4, 0)
    return tmp_path / "out"


def test_our_own_readers_read_the_set(written: Path) -> None:
    coco = read_labels(written / "annotations.json")
    assert len(coco) == 4 and coco.has_masks and coco.n_objects == 8
    split = json.loads((written / "split.json").read_text())
    assert len(coco.only(split["train"])) == 3 and len(coco.only(split["validation"])) == 1
    yolo = read_labels(written / "data.yaml", split="train")
    assert len(yolo) == 3 and yolo.has_masks
    truth = {picture.path.name: picture for picture in coco.pictures}
    for picture in yolo.pictures:
        for index in range(2):  # along the edges of pixels, so that the area is the mask's
            ring = picture.rings(index)[0]
            assert cv2.contourArea(ring) == pytest.approx(truth[picture.path.name].area_px[index], rel=1e-4)
    assert cv2.imread(str(written / "look_at.jpg")).shape == (224, 8 * 224, 3)
    assert len((written / "look_at.csv").read_text().splitlines()) == 5


@pytest.mark.filterwarnings("ignore")  # pycocotools itself
def test_pycocotools_loads_and_scores_the_set(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    truth = coco_module.COCO(str(written / "annotations.json"))
    masks = [truth.annToMask(annotation) for annotation in truth.loadAnns(truth.getAnnIds())]
    assert [int(mask.sum()) for mask in masks[::2]] == [400] * 4
    results = [
        {key: annotation[key] for key in ("image_id", "category_id", "segmentation", "bbox", "score")}
        for annotation in json.loads((written / "annotations.json").read_text())["annotations"]
    ]
    for kind in ("bbox", "segm"):
        score = COCOeval(truth, truth.loadRes(json.loads(json.dumps(results))), kind)
        score.evaluate()
        score.accumulate()
        score.summarize()
        assert score.stats[0] == pytest.approx(1)
    capsys.readouterr()


@pytest.mark.filterwarnings("ignore")
def test_ultralytics_loads_the_set(written: Path) -> None:
    dataset = pytest.importorskip("ultralytics.data.dataset")
    from ultralytics.cfg import get_cfg
    from ultralytics.data.utils import check_det_dataset

    data = check_det_dataset(str(written / "data.yaml"))
    loaded = dataset.YOLODataset(
        img_path=data["train"], data=data, task="segment", imgsz=SIDE, augment=False, hyp=get_cfg(), batch_size=1
    )
    assert len(loaded) == 3
    assert all(len(label["segments"]) == 2 for label in loaded.labels)


def test_label_studio_gets_predictions_to_mend(written: Path) -> None:
    tasks = json.loads((written / "tasks.json").read_text())
    assert len(tasks) == 4
    (prediction,) = tasks[0]["predictions"]
    assert prediction["score"] == pytest.approx(0.75, abs=0.01)
    result = prediction["result"][0]
    assert (result["type"], result["from_name"], result["to_name"]) == ("polygonlabels", "label", "image")
    points = np.array(result["value"]["points"])
    assert points.min() >= 0 and points.max() <= 100 and result["value"]["polygonlabels"] == ["square"]


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    one: MaskedSet = mask_boxes(chain_of(), boxes_of(tmp_path / "a", 1))
    with pytest.raises(DataError, match="1 of 1 pictures have objects, expected 2"):
        write_masked(one, Thresholds(), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    with pytest.raises(DataError, match="not an empty folder"):
        write_masked(mask_boxes(chain_of(), boxes_of(tmp_path / "b")), Thresholds(), tmp_path / "full")


def test_an_interrupted_set_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    masked = mask_boxes(chain_of(), boxes_of(tmp_path / "boxes"))
    monkeypatch.setattr("edgekd.data.masked_set._write_doubtful", stop)
    with pytest.raises(KeyboardInterrupt):
        write_masked(masked, Thresholds(), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["boxes"]
