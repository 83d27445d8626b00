"""Head decoding equals Ultralytics' own, thresholds and suppression do what they say."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.model_set import DetectorHead
from edgekd.runtime.detect import DetectOptions, anchors, decode, expected_distance, suppress
from edgekd.types import Detections

HEAD = DetectorHead(strides_px=(8, 16, 32), reg_max=16, end2end=False)
INPUT_PX = (64, 96)
N_ANCHORS = 8 * 12 + 4 * 6 + 2 * 3


def head_maps(seed: int, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    box = generator.standard_normal((64, N_ANCHORS)).astype(np.float32) * 2
    return box, generator.standard_normal((n_classes, N_ANCHORS)).astype(np.float32) * 2 - 2


def test_anchors_run_through_the_levels_row_by_row() -> None:
    centres, strides = anchors(*INPUT_PX, HEAD.strides_px)
    assert centres.shape == (N_ANCHORS, 2)
    assert centres[1].tolist() == [1.5, 0.5]
    assert centres[12].tolist() == [0.5, 1.5]
    assert [int(s) for s in np.unique(strides)] == [8, 16, 32]


def test_expected_distance_of_a_sure_bin_is_the_bin() -> None:
    logits = np.full((1, 16), -50, np.float32)
    logits[0, 5] = 50
    assert expected_distance(logits)[0] == pytest.approx(5)
    assert expected_distance(np.zeros((1, 16), np.float32))[0] == pytest.approx(7.5)


def test_decoding_equals_ultralytics_head() -> None:
    torch = pytest.importorskip("torch")
    head_module = pytest.importorskip("ultralytics.nn.modules.head")
    head = head_module.Detect(nc=3, ch=(16, 16, 16)).eval()
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    box, scores = head_maps(0)
    levels = [torch.zeros(1, 16, INPUT_PX[0] // s, INPUT_PX[1] // s) for s in (8, 16, 32)]
    maps = {"boxes": torch.from_numpy(box)[None], "scores": torch.from_numpy(scores)[None], "feats": levels}
    expected = head._inference(maps)[0].numpy()
    options = DetectOptions(confidence=1e-9, max_boxes=N_ANCHORS)
    found, _ = decode(box, scores, HEAD, INPUT_PX, options)
    order = np.argsort(-scores.max(0), kind="stable")
    centre, size = expected[:2, order], expected[2:4, order]
    np.testing.assert_allclose(found.xyxy.T, np.concatenate([centre - size / 2, centre + size / 2]), atol=1e-3)
    np.testing.assert_allclose(found.confidence, expected[4:, order].max(0), atol=1e-6)


def test_only_boxes_above_the_confidence_are_decoded() -> None:
    box, scores = head_maps(1)
    found, _ = decode(box, scores, HEAD, INPUT_PX, DetectOptions(confidence=0.6))
    assert len(found) == int((1 / (1 + np.exp(-scores.max(0))) > 0.6).sum())
    assert (np.diff(found.confidence) <= 0).all()


def test_multi_label_gives_every_class_of_an_anchor() -> None:
    box, scores = head_maps(2)
    options = DetectOptions(confidence=0.3, multi_label=True)
    assert len(decode(box, scores, HEAD, INPUT_PX, options)[0]) == int((1 / (1 + np.exp(-scores)) > 0.3).sum())


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    array = np.array(rows, np.float32)
    return Detections(array[:, :4], array[:, 4], array[:, 5].astype(np.int32))


def test_suppression_is_per_class() -> None:
    found = boxes((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0), (1, 0, 11, 10, 0.7, 1), (50, 50, 60, 60, 0.6, 0))
    kept = found[suppress(found, DetectOptions(iou=0.5), end2end=False)]
    assert kept.confidence.tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_suppression_equals_torchvision() -> None:
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    generator = np.random.default_rng(3)
    corner = generator.uniform(0, 80, (300, 2))
    xyxy = np.concatenate([corner, corner + generator.uniform(5, 40, (300, 2))], 1).astype(np.float32)
    confidence = np.sort(generator.random(300).astype(np.float32))[::-1].copy()
    class_id = generator.integers(0, 3, 300).astype(np.int32)
    found = Detections(xyxy, confidence, class_id)
    kept = found[suppress(found, DetectOptions(iou=0.45), end2end=False)]
    expected = ops.batched_nms(
        torch.from_numpy(xyxy), torch.from_numpy(confidence), torch.from_numpy(class_id.astype(np.int64)), 0.45
    )
    np.testing.assert_array_equal(kept.confidence, confidence[np.sort(expected.numpy())])


def test_end2end_heads_are_not_suppressed_and_the_number_is_limited() -> None:
    found = boxes((0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0), (0, 0, 10, 10, 0.7, 0))
    assert len(suppress(found, DetectOptions(), end2end=True)) == 3
    assert len(suppress(found, DetectOptions(max_boxes=2), end2end=True)) == 2


@pytest.mark.parametrize("values", [{"confidence": 0.0}, {"confidence": 1.5}, {"iou": -0.1}, {"max_boxes": 0}])
def test_options_out_of_range_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        DetectOptions(**values)  # type: ignore[arg-type]
