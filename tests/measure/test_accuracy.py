"""Accuracy and parity of a whole chain, on labels made from what it finds and on labels that are wrong on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from perfect_chain import PIPELINE, PerfectChain, draw

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.environment import describe_machine
from edgekd.errors import DataError, InputError
from edgekd.measure import coco_metrics as coco
from edgekd.measure.accuracy import (
    AccuracyReport,
    EvaluateOptions,
    PictureScore,
    accuracy_table,
    evaluate,
    evaluate_chain,
    map_classes,
    worst_pictures,
)
from edgekd.measure.parity import ParityOptions, compare_bundles, compare_chains, parity_table
from edgekd.measure.quality import QualityCheck, Sample
from edgekd.measure.worst_cases import worst_case_grid
from edgekd.runtime.chain import Chain
from edgekd.runtime.tiles import TileOptions


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory, scene: np.ndarray, shipped_bundle: Path) -> LabelledSet:
    """The scene, labelled with what the shipped models find in it."""
    path = tmp_path_factory.mktemp("labels") / "scene.png"
    cv2.imwrite(str(path), scene)
    with Chain.open(shipped_bundle) as chain:
        result = chain(scene)
        names = chain.manifest.pipeline.class_names
    picture = LabelledPicture(
        path=path,
        size_px=scene.shape[:2],
        xyxy=result.detections.xyxy,
        class_id=result.detections.class_id,
        area_px=result.masks.areas_px().astype(np.float64),
        crowd=np.zeros(len(result), np.bool_),
        segmentations=tuple(coco.encode_masks(result.masks)),
    )
    assert len(result) > 5
    return LabelledSet(path, names, (picture,))


def test_its_own_findings_as_labels_score_full_marks(shipped_bundle: Path, labels: LabelledSet) -> None:
    report = evaluate(shipped_bundle, labels)
    # Boxes below the labels' confidence come after all labels are found, so they cost nothing.
    assert report.box["ap"] == pytest.approx(1)
    assert report.mask["ap"] == pytest.approx(1)
    assert report.gt_box_mask["miou"] == pytest.approx(1, abs=1e-6)
    assert report.pictures[0].box_f1 == report.pictures[0].miou == pytest.approx(1)
    assert report.n_objects == len(labels.pictures[0])
    assert "100.0" in _text(accuracy_table(report))


def test_moved_labels_score_less(shipped_bundle: Path, labels: LabelledSet) -> None:
    (picture,) = labels.pictures
    moved = replace(labels, pictures=(replace(picture, xyxy=picture.xyxy + 12),))
    with Chain.open(shipped_bundle) as chain:
        metrics, scores = evaluate_chain(chain, moved, EvaluateOptions(segmenter=False))
    assert 0 < metrics["box"]["ap"] < 0.8
    assert metrics["mask"] == metrics["gt_box_mask"] == {}
    assert scores[0].miou is None


def test_other_classes_are_refused_where_they_matter(shipped_bundle: Path, labels: LabelledSet) -> None:
    other = replace(labels, class_names=tuple(f"other {name}" for name in labels.class_names))
    with Chain.open(shipped_bundle) as chain:
        with pytest.raises(DataError, match="labels the class 'other"):
            evaluate_chain(chain, other)
        metrics, _ = evaluate_chain(chain, other, EvaluateOptions(detector=False))
    assert metrics["gt_box_mask"]["miou"] == pytest.approx(1, abs=1e-6)


def test_class_names_match_however_they_are_written(labels: LabelledSet) -> None:
    names = [name.upper().replace("_", "-") for name in labels.class_names]
    np.testing.assert_array_equal(map_classes(labels, names[::-1]), np.arange(len(names))[::-1])


def test_a_picture_of_another_size_is_refused(shipped_bundle: Path, labels: LabelledSet) -> None:
    wrong = replace(labels, pictures=(replace(labels.pictures[0], size_px=(10, 10)),))
    with Chain.open(shipped_bundle) as chain, pytest.raises(DataError, match="its label says 10x10"):
        evaluate_chain(chain, wrong)


def test_a_bundle_equals_itself(shipped_bundle: Path, labels: LabelledSet) -> None:
    report = compare_bundles(shipped_bundle, shipped_bundle, [labels.pictures[0].path] * 2)
    assert (report.box_match, report.mask_iou, report.confidence_difference) == (1, 1, 0)
    assert report.embedding_cosine == pytest.approx(1)
    assert report.embedding_sameness == pytest.approx(0, abs=1e-6)
    assert "box_match" in _text(parity_table(report))
    with pytest.raises(InputError, match="no picture"):
        compare_bundles(shipped_bundle, shipped_bundle, [])


def test_an_encoder_that_sees_nothing_is_noticed(
    shipped_bundle: Path, labels: LabelledSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((64, 96, 3), np.uint8))
    with Chain.open(shipped_bundle) as reference, Chain.open(shipped_bundle) as blind:
        shape = reference.embed(np.zeros((64, 96, 3), np.uint8)).shape
        constant = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        monkeypatch.setattr(blind, "embed", lambda picture: constant)
        options = ParityOptions(detector=False)
        report = compare_chains(reference, blind, [labels.pictures[0].path, black], options)
    assert report.embedding_cosine is not None and report.embedding_cosine < 0.5
    assert report.embedding_sameness is not None and report.embedding_sameness > 0.05


def test_a_gauge_measures_no_loss_against_itself(shipped_bundle: Path, labels: LabelledSet) -> None:
    with Chain.open(shipped_bundle) as chain:
        quality = QualityCheck(chain, Sample.of_labels(labels), ("box_ap", "miou", "mask_iou"))
        assert quality.measure(chain) == {"box_ap": 0, "miou": 0, "mask_iou": 1}
        (picture,) = labels.pictures
        boxes_only = replace(labels, pictures=(replace(picture, segmentations=(None,) * len(picture)),))
        with pytest.raises(InputError, match="boxes only"):
            QualityCheck(chain, Sample.of_labels(boxes_only), ("miou",))


def test_the_worst_pictures_come_first_and_are_drawn(shipped_bundle: Path, labels: LabelledSet) -> None:
    scores = [
        PictureScore(name="good", n_objects=3, box_f1=0.9, miou=0.8),
        PictureScore(name="empty", n_objects=0, box_f1=0.0),
        PictureScore(name="bad", n_objects=3, box_f1=0.9, miou=0.1),
    ]
    assert [score.name for score in worst_pictures(scores, 2)] == ["bad", "good"]
    own = PictureScore(name="scene.png", n_objects=1, box_f1=0.5)
    with Chain.open(shipped_bundle) as chain:
        grid = worst_case_grid(chain, labels, [own, own])
    assert grid.shape == (2 * (480 + 28), 960, 3) and grid.dtype == np.uint8
    assert grid.std() > 20


def _text(table: object) -> str:
    from rich.console import Console

    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_report_written_before_has_its_version_split_off() -> None:
    old = {
        "edgekd_version": "0", "machine": describe_machine().model_dump(), "bundle_sha256": "0",
        "backend": "openvino 2026.1.0-1", "precision": {}, "data": "a/b", "n_images": 1, "n_objects": 1,
        "confidence": 0.1, "mask_confidence": 0.1,
    }  # fmt: skip
    report = AccuracyReport.model_validate(old)
    assert (report.backend, report.backend_version) == ("openvino", "2026.1.0-1")
    again = AccuracyReport.model_validate_json(report.model_dump_json())
    assert (again.backend, again.backend_version) == ("openvino", "2026.1.0-1")


def test_tiles_count_more_objects_than_coco_does(tmp_path: Path) -> None:
    picture, drawn = draw((900, 900), 400)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    found = PerfectChain()(picture)
    n = len(found)
    assert n > 120 and drawn.any()
    labels = LabelledSet(
        tmp_path / "a.png",
        PIPELINE.class_names,
        (
            LabelledPicture(
                tmp_path / "a.png", (900, 900), found.detections.xyxy, found.detections.class_id,
                found.masks.areas_px().astype(np.float64), np.zeros(n, np.bool_), (None,) * n,
            ),
        ),
    )  # fmt: skip
    boxes_only = EvaluateOptions(segmenter=False)
    tiled, _ = evaluate_chain(PerfectChain(), labels, replace(boxes_only, tiles=TileOptions(128, 32)))  # type: ignore[arg-type]
    whole, _ = evaluate_chain(PerfectChain(), labels, boxes_only)  # type: ignore[arg-type]
    assert tiled["box"]["ap"] == pytest.approx(1, abs=1e-3)
    assert whole["box"]["ap"] < 100 / n + 0.02
