"""Conditions move labels with pixels, and two bundles are compared picture by picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.measure import robustness
from edgekd.measure.accuracy import EvaluateOptions
from edgekd.measure.conditions import CONDITIONS, blurred, compressed, covered, noisy, scaled, turned
from edgekd.measure.robustness import Row, kept_of, measure_robustness, robustness_table

TRIANGLE = [20.0, 10.0, 60.0, 10.0, 20.0, 40.0]


def drawn(rings: Sequence[np.ndarray], size_px: tuple[int, int]) -> np.ndarray:
    """The pixels whose centres, at +0.5, lie within a triangle."""
    (corners,) = rings
    y, x = np.mgrid[: size_px[0], : size_px[1]] + 0.5
    sides = [
        (b[0] - a[0]) * (y - a[1]) - (b[1] - a[1]) * (x - a[0])
        for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
    ]
    return np.all(np.array(sides) > 0, axis=0) | np.all(np.array(sides) < 0, axis=0)


@pytest.fixture
def picture() -> tuple[np.ndarray, LabelledPicture]:
    """A white triangle on black, 100 x 80 px, labelled with its outline."""
    pixels = np.zeros((80, 100, 3), np.uint8)
    pixels[drawn([np.array(TRIANGLE, np.float32).reshape(-1, 2)], (80, 100))] = 255
    labels = LabelledPicture(
        Path("a.png"),
        (80, 100),
        np.array([[20, 10, 60, 40]], np.float32),
        np.zeros(1, np.int32),
        np.array([600.0]),
        np.zeros(1, bool),
        (([TRIANGLE]),),
        ("thing",),
    )
    return pixels, labels


@pytest.mark.parametrize(
    "condition", [turned(90), turned(180), turned(270), turned(30), scaled(0.5), scaled(1.7)], ids=lambda c: c.name
)
def test_the_label_lies_on_the_object_after_a_move(picture, condition) -> None:
    pixels, labels = condition.apply(*picture)
    assert pixels.shape[:2] == labels.size_px
    seen, told = pixels[:, :, 0] > 127, drawn(labels.rings(0), labels.size_px)
    assert (seen & told).sum() / (seen | told).sum() > 0.93
    x, y = np.nonzero(seen.any(0))[0], np.nonzero(seen.any(1))[0]
    np.testing.assert_allclose(
        labels.xyxy[0], [x[0], y[0], x[-1] + 1, y[-1] + 1], atol=2.5
    )  # the tip is thinner than a pixel
    assert labels.area_px[0] == pytest.approx(seen.sum(), rel=0.15)


def test_quarter_turns_are_exact(picture) -> None:
    pixels, labels = turned(90).apply(*picture)
    np.testing.assert_array_equal(pixels, np.rot90(picture[0]))
    np.testing.assert_allclose(labels.xyxy[0], [10, 40, 40, 80], atol=1e-4)
    assert labels.segmentations[0] is not None


def test_a_box_without_a_mask_stays_without_one(picture) -> None:
    from dataclasses import replace

    _, labels = turned(45).apply(picture[0], replace(picture[1], segmentations=(None,)))
    assert labels.segmentations == (None,) and labels.xyxy[0, 2] - labels.xyxy[0, 0] == pytest.approx(70 / 2**0.5)


def test_damage_repeats_and_leaves_labels_alone(picture) -> None:
    for condition in (covered(0.25), blurred(2), noisy(25), compressed(20)):
        one, labels = condition.apply(*picture)
        two, _ = condition.apply(*picture)
        assert labels is picture[1] and one.shape == picture[0].shape and np.array_equal(one, two)
        assert not np.array_equal(one, picture[0])
    hidden = (covered(0.25).apply(*picture)[0] == 114).all(axis=2).sum()
    assert hidden == pytest.approx(0.25 * 40 * 30, rel=0.1)
    assert len({(c.group, c.name) for c in CONDITIONS}) == len(CONDITIONS)


def test_kept_is_relative_to_clean() -> None:
    clean = Row(group="clean", name="", n_images=1, values={"ap": 0.5, "ap_small": 0.0})
    row = Row(group="blur", name="1 px", n_images=1, values={"ap": 0.4, "ap_small": 0.1})
    assert kept_of(row, clean) == {"ap": 0.8}


def test_a_bundle_under_conditions(tmp_path, shipped_bundle, scene, monkeypatch) -> None:
    from edgekd.runtime.chain import Chain

    path = tmp_path / "scene.png"
    cv2.imwrite(str(path), scene)
    with Chain.open(shipped_bundle) as chain:
        names, found = chain.manifest.pipeline.class_names, chain.detect(scene)
    n = len(found)
    sides = found.xyxy[:, 2:] - found.xyxy[:, :2]
    labels = LabelledPicture(
        path, scene.shape[:2], found.xyxy, found.class_id, sides.prod(axis=1).astype(float), np.zeros(n, bool),
        (None,) * n, names,
    )  # fmt: skip
    monkeypatch.setattr(robustness, "CONDITIONS", (turned(180), noisy(120)))
    options = EvaluateOptions(segmenter=False)
    report = measure_robustness(shipped_bundle, LabelledSet(path, names, (labels,)), options)
    rows = {row.group: row for row in report.rows}
    assert rows["clean"].values["ap"] == pytest.approx(1.0, abs=0.01) and not rows["clean"].kept
    assert rows["noise"].kept["ap"] < rows["rotation"].kept["ap"] <= 1.01
    assert ("dense" in rows) == (n >= robustness.DENSE_OBJECTS)
    assert robustness_table(report).row_count == len(report.rows)
