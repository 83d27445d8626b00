"""The chain on the shipped models: right objects, same answer in every thread, flat memory, clear refusals."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

import edgekd
from edgekd.errors import BundleError, InputError

DRAWN = {"airplane": 6, "storage_tank": 8, "tennis_court": 3, "ground_track_field": 1, "baseball_diamond": 2}


def test_the_drawn_objects_are_found(shipped_bundle: Path, scene: np.ndarray) -> None:
    with edgekd.load(shipped_bundle) as chain:
        result = chain(scene)
    counts = {name: 0 for name in DRAWN}
    for class_id in result.detections.class_id:
        counts[result.class_names[class_id]] = counts.get(result.class_names[class_id], 0) + 1
    assert sum(min(counts[name], number) for name, number in DRAWN.items()) >= 18
    assert len(result.masks) == len(result.detections)
    assert result.masks.full(0).shape == scene.shape[:2]
    assert result.times_ms["total"] >= result.times_ms["encoder"] > 0


def test_two_threads_give_what_one_gives(shipped_bundle: Path, scene: np.ndarray) -> None:
    pictures = [scene, scene[:, ::-1].copy(), scene[:320].copy(), scene[:, :500].copy()]
    with edgekd.load(shipped_bundle, n_threads=1) as chain:
        alone = [chain(picture) for picture in pictures]
        clones = [chain.clone(), chain.clone()]

        def work(clone: edgekd.Chain) -> list[edgekd.ChainResult]:
            return [clone(picture) for picture in pictures]

        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(work, clones))
    for results in together:
        for result, expected in zip(results, alone, strict=True):
            np.testing.assert_array_equal(result.detections.xyxy, expected.detections.xyxy)
            for index in range(len(expected)):
                np.testing.assert_array_equal(result.masks.full(index), expected.masks.full(index))


def test_a_wide_picture_needs_no_padding(tmp_path: Path, shipped_bundle: Path, scene: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.package_files import default_models

    # ONNX Runtime takes any size as it comes; OpenVINO compiles the network for each.
    options = BuildOptions(backend="onnxruntime", precision="fp32", encoder_px=(256, 256))
    build_bundle(default_models(), tmp_path / "any_size", options, lambda line: None)
    wide = scene[: scene.shape[1] * 9 // 16]
    with edgekd.load(shipped_bundle) as chain, edgekd.load(tmp_path / "any_size") as reference:
        assert chain.embed(scene).shape != (1, 256, 10, 16)
        embeddings = chain.embed(wide)
        assert embeddings.shape == (1, 256, 10, 16)
        kept, expected_later = embeddings, embeddings.copy()
        np.testing.assert_allclose(embeddings, reference.embed(wide), atol=1e-3)
        boxes = reference.detect(wide).xyxy
        assert len(boxes) > 5
        np.testing.assert_allclose(chain.detect(wide).xyxy, boxes, atol=0.05)
        got, expected = chain(wide, boxes=boxes).masks, reference(wide, boxes=boxes).masks
    np.testing.assert_array_equal(kept, expected_later)  # they are the user's, also when the chain is closed
    a, b = (np.stack([masks.full(index) for index in range(len(boxes))]) for masks in (got, expected))
    assert ((a & b).sum((1, 2)) / (a | b).sum((1, 2))).min() > 0.99


def test_square_bundles_feed_the_full_size(tmp_path: Path, scene: np.ndarray) -> None:
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.package_files import default_models

    options = BuildOptions(precision="fp32", detector_px=(320, 320), encoder_px=(256, 256), square=True)
    build_bundle(default_models(), tmp_path / "square", options, lambda line: None)
    with edgekd.load(tmp_path / "square") as chain:
        assert chain.embed(scene[: scene.shape[1] * 9 // 16]).shape == (1, 256, 16, 16)


def test_no_detections_run_no_segmenter(shipped_bundle: Path) -> None:
    with edgekd.load(shipped_bundle) as chain:
        result = chain(np.full((50, 70, 3), 90, np.uint8))
    assert len(result) == 0
    assert "encoder" not in result.times_ms


def test_five_hundred_given_boxes_are_segmented(shipped_bundle: Path, scene: np.ndarray) -> None:
    corner = np.random.default_rng(0).uniform(0, 500, (500, 2))
    boxes = np.concatenate([corner, corner + 60], 1).astype(np.float32)
    with edgekd.load(shipped_bundle) as chain:
        result = chain(scene, boxes=boxes)
    assert len(result) == len(result.masks) == 500


@pytest.mark.parametrize("size", [(1, 1), (30, 20_000), (20_000, 30)])
def test_extreme_pictures_run(shipped_bundle: Path, size: tuple[int, int]) -> None:
    with edgekd.load(shipped_bundle) as chain:
        result = chain(np.zeros((*size, 3), np.uint8), boxes=np.array([[0, 0, 1, 1]], np.float32))
    assert result.masks.size_px == size


def test_memory_does_not_grow(shipped_bundle: Path, scene: np.ndarray) -> None:
    process = psutil.Process()
    picture = scene[:160, :160].copy()
    boxes = np.array([[10, 10, 90, 90]], np.float32)
    with edgekd.load(shipped_bundle) as chain:
        for _ in range(20):
            chain(picture, boxes=boxes)
        gc.collect()
        before = process.memory_info().rss
        for _ in range(60):
            chain(picture, boxes=boxes)
        gc.collect()
        assert process.memory_info().rss - before < 8 << 20


@pytest.mark.parametrize("boxes", [np.zeros((3, 5)), np.zeros(4), np.full((1, 4), np.nan)])
def test_boxes_of_another_form_are_refused(shipped_bundle: Path, scene: np.ndarray, boxes: np.ndarray) -> None:
    with edgekd.load(shipped_bundle) as chain, pytest.raises(InputError, match="expected"):
        chain(scene, boxes=boxes)


def test_a_missing_bundle_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="edgekd build-engine"):
        edgekd.load(tmp_path)


def test_a_closed_chain_says_so(shipped_bundle: Path, scene: np.ndarray) -> None:
    chain = edgekd.load(shipped_bundle)
    chain.close()
    with pytest.raises(InputError, match="the chain is closed"):
        chain(scene)
