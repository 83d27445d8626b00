"""A bundle of the kind `crop`: the interface of any other, masks that other boxes do not change, defined edge cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from kind_models import write_crop_models

import edgekd
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.errors import BuildError, InputError
from edgekd.runtime.chain import MAX_GIVEN_BOXES, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.types import Masks

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx")
    return write_crop_models(tmp_path_factory.mktemp("crop") / "models")


@pytest.fixture(scope="module")
def bundle(models: Path) -> Path:
    folder = models.parent / "bundle"
    build_bundle(models, folder, BuildOptions(precision="fp32", detector_px=(320, 320), square=True))
    return folder


@pytest.fixture(scope="module")
def chain(bundle: Path) -> edgekd.Chain:
    return edgekd.load(str(bundle), n_threads=1)


def ious(first: Masks, second: Masks) -> list[float]:
    pairs = [(first.full(index), second.full(index)) for index in range(len(first))]
    return [(a & b).sum() / max((a | b).sum(), 1) if a.any() or b.any() else 1.0 for a, b in pairs]


def test_a_crop_bundle_is_used_like_any_other(chain: edgekd.Chain, scene: np.ndarray) -> None:
    result = chain(scene)
    assert len(result) == len(result.masks) > 10
    assert {"segmenter_preprocess", "segmenter", "mask_postprocess", "total"} <= set(result.times_ms)
    filled = [result.masks.crops[index].mean() for index in range(len(result)) if result.masks.crops[index].size]
    assert 0.05 < np.mean(filled) < 0.95
    with pytest.raises(InputError, match="kind crop has no image embeddings"):
        chain.embed(scene)


def test_other_boxes_do_not_change_a_mask(chain: edgekd.Chain, scene: np.ndarray) -> None:
    boxes = chain.detect(scene, DetectOptions(confidence=0.05)).xyxy
    together = chain(scene, boxes=np.concatenate([boxes, boxes])).masks
    assert len(together) > 32
    alone = [chain(scene, boxes=boxes[index : index + 1]).masks for index in range(5)]
    for index, masks in enumerate(alone):
        np.testing.assert_array_equal(masks.full(0), together.full(index))
        np.testing.assert_array_equal(masks.full(0), together.full(len(boxes) + index))


def test_buckets_and_backends_agree(models: Path, chain: edgekd.Chain, scene: np.ndarray, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options = BuildOptions(backend="onnxruntime", detector_px=(320, 320), square=True, box_buckets=(1, 4))
    build_bundle(models, tmp_path / "b", options)
    boxes = chain.detect(scene).xyxy
    with edgekd.load(str(tmp_path / "b")) as other:
        assert min(ious(chain(scene, boxes=boxes).masks, other(scene, boxes=boxes).masks)) >= 0.99


@pytest.mark.parametrize(
    "box",
    [(5, 5, 6, 6), (7, 7, 7, 7), (-50, -50, 2000, 2000), (950, 630, 970, 650), (0, 0, 1, 640)],
    ids=["one pixel", "a point", "wider than the picture", "over the corner", "a line"],
)
def test_odd_boxes_have_a_defined_result(chain: edgekd.Chain, scene: np.ndarray, box: tuple[float, ...]) -> None:
    result = chain(scene, boxes=np.array([box], np.float32))
    assert len(result.masks) == 1
    assert result.masks.full(0).shape == scene.shape[:2]
    assert 0 <= result.masks.predicted_iou[0] <= 1


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([[np.nan, 0, 1, 1]], "finite"), ([[0, 0, 1]], r"\(n, 4\)"), ([[9, 9, 5, 12]], "box 0 of boxes .* is inverted"),
        ([[0, 0, 5, 5], [2000, 0, 2100, 9]], "box 1 of boxes .* lies outside the picture of 960x640"),
        (np.zeros((MAX_GIVEN_BOXES + 1, 4)), "at most 4096"),
    ],
)  # fmt: skip
def test_impossible_boxes_are_one_sentence(
    chain: edgekd.Chain, scene: np.ndarray, boxes: list[list[float]], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        chain(scene, boxes=np.array(boxes, np.float32))
    assert "\n" not in str(caught.value)


def test_a_thousand_boxes(chain: edgekd.Chain, scene: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    corner = generator.uniform(0, 600, (1000, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(1, 60, (1000, 2))], 1).astype(np.float32)
    assert len(chain(scene, boxes=boxes).masks) == 1000


def test_a_segmenter_size_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="kind crop"):
        build_bundle(models, tmp_path / "b", BuildOptions(encoder_px=(256, 256)))


def test_bench_and_evaluate_ask_the_segmenter(chain: edgekd.Chain, scene: np.ndarray) -> None:
    from edgekd.measure.latency import BenchOptions, bench_chain

    report = bench_chain(chain, "0", [scene], BenchOptions(1, 2, 0.0), ChainOptions())
    assert report.per_box_ms is not None
    assert set(report.input_px) == {"detector"}
