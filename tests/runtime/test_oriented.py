"""Turned boxes: geometry is exact, ProbIoU and suppression equal Ultralytics', boxes of a whole network too."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edgekd.model_set import DetectorHead
from edgekd.runtime.detect import DetectOptions, decode, suppress
from edgekd.runtime.oriented import (
    boxes_of,
    corners_of,
    enclosing,
    probiou,
    suppress_turned,
    to_picture,
    turned_ious,
)
from edgekd.runtime.preprocess import Placement

HEAD = DetectorHead(strides_px=(8, 16, 32), reg_max=16, end2end=False, name="obb")
INPUT_PX = (64, 96)
N_ANCHORS = 8 * 12 + 4 * 6 + 2 * 3

turned_box = st.tuples(
    st.floats(0, 500), st.floats(0, 500), st.floats(0.5, 200), st.floats(0.5, 200), st.floats(-math.pi, math.pi)
)


def random_boxes(n: int, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    centre, size = generator.uniform(0, 150, (n, 2)), generator.uniform(4, 80, (n, 2))
    return np.concatenate([centre, size, generator.uniform(-0.7, 2.3, (n, 1))], 1)


def test_corners_begin_left_top_and_turn_clockwise() -> None:
    upright = corners_of(np.array([[50, 40, 20, 10, 0]]))[0]
    assert upright.tolist() == [[40, 35], [60, 35], [60, 45], [40, 45]]
    quarter = corners_of(np.array([[50, 40, 20, 10, math.pi / 2]]))[0]
    np.testing.assert_allclose(quarter, [[55, 30], [55, 50], [45, 50], [45, 30]], atol=1e-9)
    assert enclosing(quarter).tolist() == [[45, 30, 55, 50]]


@settings(deadline=None, max_examples=50)
@given(turned_box)
def test_corners_give_their_box_back(box: tuple[float, ...]) -> None:
    found = boxes_of(corners_of(np.array([box])))[0]
    np.testing.assert_allclose(found[:4], box[:4], atol=1e-6)
    assert math.cos(found[4] - box[4]) == pytest.approx(1, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(turned_box, st.floats(0.2, 3))
def test_a_box_comes_back_from_the_input_as_a_rectangle(box: tuple[float, ...], scale: float) -> None:
    placement = Placement(scale, scale * 1.004, 7, 3, (500, 500), (500, 500), (640, 640))
    at_input = corners_of(np.array([box]))
    found = to_picture(at_input, placement)[0].astype(np.float64)
    middle = (at_input[0].mean(0) - [7, 3]) / [scale, scale * 1.004]
    np.testing.assert_allclose(found.mean(0), middle, atol=1e-2)
    sides = found[1] - found[0], found[3] - found[0]
    assert abs(sides[0] @ sides[1]) <= 1e-3 * (1 + np.linalg.norm(sides[0])) * (1 + np.linalg.norm(sides[1]))


def test_probiou_equals_ultralytics() -> None:
    torch = pytest.importorskip("torch")
    metrics = pytest.importorskip("ultralytics.utils.metrics")
    a, b = random_boxes(40), random_boxes(30, 1)
    expected = metrics.batch_probiou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    np.testing.assert_allclose(probiou(a, b), expected, atol=1e-9)


@settings(deadline=None, max_examples=30)
@given(st.lists(turned_box, min_size=1, max_size=5))
@example([(0.0, 0.0, 1.0, 8.0, 1.0), (0.0, 0.0, 5.0, 8.0, 1.0)])  # two sides of each on two lines, but for rounding
def test_ious_equal_shapely(rows: list[tuple[float, ...]]) -> None:
    shapely = pytest.importorskip("shapely")
    a = corners_of(np.array(rows))
    b = np.concatenate([a, a + 3, corners_of(random_boxes(3))])
    first, second = shapely.polygons(a), shapely.polygons(b)
    common = shapely.area(shapely.intersection(first[:, None], second[None]))
    union = shapely.area(first)[:, None] + shapely.area(second)[None] - common
    np.testing.assert_allclose(turned_ious(a, b), common / union, atol=1e-6)


def test_boxes_that_lie_apart_and_no_boxes_have_defined_ious() -> None:
    a, b = corners_of(np.array([[10, 10, 5, 5, 0.3]])), corners_of(np.array([[90, 90, 5, 5, 0.3]] * 2))
    assert turned_ious(a, b).tolist() == [[0, 0]]
    assert turned_ious(a, b[:0]).shape == (1, 0) and turned_ious(a[:0], b).shape == (0, 2)


def test_boxes_without_area_have_defined_results() -> None:
    points = np.array([[10, 10, 0, 0, 0.3], [10, 10, 0, 0, 1.0], [50, 50, 20, 0, 0.0], [50, 50, 20, 10, 0.0]])
    assert np.isfinite(probiou(points, points)).all()
    assert (turned_ious(corners_of(points), corners_of(points))[:3] == 0).all()
    assert suppress_turned(points, np.zeros(4, np.int32), 0.7).tolist() == [0, 2, 3]
    assert boxes_of(corners_of(np.array([[5, 5, 0, 8, 0.4]])))[0, 4] == pytest.approx(0.4)


def head_maps(seed: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    box = generator.standard_normal((64, N_ANCHORS)).astype(np.float32) * 2
    scores = generator.standard_normal((n_classes, N_ANCHORS)).astype(np.float32) * 2 - 2
    return box, scores, generator.standard_normal((1, N_ANCHORS)).astype(np.float32) * 2


@pytest.mark.parametrize("angle", ["sigmoid", "radians"])
def test_decoding_and_suppression_equal_ultralytics(angle: str) -> None:
    torch = pytest.importorskip("torch")
    module = pytest.importorskip("ultralytics.nn.modules.head")
    from ultralytics.utils.nms import non_max_suppression

    head = (module.OBB if angle == "sigmoid" else module.OBB26)(nc=3, ch=(16, 16, 16)).eval()
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    box, scores, logits = head_maps(0)
    angles = torch.from_numpy(logits)[None]
    maps = {
        "boxes": torch.from_numpy(box)[None],
        "scores": torch.from_numpy(scores)[None],
        "angle": (angles.sigmoid() - 0.25) * math.pi if angle == "sigmoid" else angles,
        "feats": [torch.zeros(1, 16, INPUT_PX[0] // s, INPUT_PX[1] // s) for s in (8, 16, 32)],
    }
    head.angle = maps["angle"]
    expected = non_max_suppression(head._inference(maps), 0.05, 0.8, nc=3, rotated=True)[0].numpy()
    options = DetectOptions(confidence=0.05, iou=0.8)
    found, _ = decode(box, scores, HEAD.model_copy(update={"angle": angle}), INPUT_PX, options, logits)
    kept = found[suppress(found, options, end2end=False)]
    assert 5 < len(kept) < len(found) and kept.corners is not None
    np.testing.assert_array_equal(kept.class_id, expected[:, 5])
    np.testing.assert_allclose(kept.confidence, expected[:, 4], atol=1e-6)
    np.testing.assert_allclose(kept.corners, corners_of(expected[:, [0, 1, 2, 3, 6]]), atol=2e-3)


def test_thousand_boxes_are_suppressed_as_ultralytics_does() -> None:
    torch = pytest.importorskip("torch")
    from ultralytics.utils.metrics import batch_probiou
    from ultralytics.utils.nms import TorchNMS

    boxes, confidence = random_boxes(1000, 5), np.linspace(1, 0.1, 1000)
    classes = (np.arange(1000) % 3).astype(np.int32)
    moved = boxes + np.array([1, 1, 0, 0, 0]) * (7680 * classes[:, None])
    expected = TorchNMS.fast_nms(torch.from_numpy(moved), torch.from_numpy(confidence), 0.4, iou_func=batch_probiou)
    assert suppress_turned(boxes, classes, 0.4).tolist() == sorted(expected.tolist())


@pytest.mark.assets
def test_a_whole_network_equals_ultralytics(assets: Path, tmp_path: Path) -> None:
    pytest.importorskip("ultralytics")
    import torch
    from oriented_nets import write_oriented_checkpoint
    from ultralytics import YOLO

    from edgekd.deploy.export import DETECTOR_PAD
    from edgekd.model_set import ImageInput
    from edgekd.models.yolo11n import DetectorGraph, load_detector
    from edgekd.runtime.detect import detect
    from edgekd.runtime.preprocess import preprocess
    from edgekd.runtime.sources import read_picture

    checkpoint = write_oriented_checkpoint(tmp_path / "yolo11n-obb.pt")
    graph, reference = DetectorGraph(load_detector(checkpoint, oriented=True)), YOLO(checkpoint)
    spec = ImageInput(
        height_px=256, width_px=256, place="centre", interpolation="linear", mean=(0, 0, 0), std=(255,) * 3,
        pad=DETECTOR_PAD,
    )  # fmt: skip
    n_pictures = n_boxes = 0
    for path in sorted((assets / "data" / "nwpu_vhr10" / "images").iterdir())[:24]:
        picture = read_picture(path)
        blob, placement = preprocess(picture, spec)
        with torch.no_grad():
            maps = graph(torch.from_numpy(blob))
        outputs = {name: value.numpy() for name, value in zip(OUTPUTS, maps, strict=True)}
        found = detect(outputs, HEAD, placement, DetectOptions()).detections
        if (found.confidence == 1).sum() > 1:  # beyond float32's sigmoid nothing decides the order
            continue
        expected = reference.predict(picture, imgsz=256, rect=False, conf=0.25, iou=0.7, verbose=False)[0].obb
        np.testing.assert_array_equal(found.class_id, expected.cls.numpy())
        np.testing.assert_allclose(found.confidence, expected.conf.numpy(), atol=1e-4)
        assert found.corners is not None
        ious = turned_ious(found.corners, corners_of(expected.xywhr.numpy())).diagonal()
        assert len(found) == 0 or ious.min() >= 0.99
        n_boxes, n_pictures = n_boxes + len(found), n_pictures + 1
    assert n_pictures >= 20 and n_boxes > 200


OUTPUTS = ("box_logits", "class_logits", "angle_logits")
