"""A TensorRT bundle from `build_bundle` to `bench`, on the stand-in: the same answers as ONNX Runtime, bit for bit."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from kind_models import write_crop_models, write_segment_models
from small_models import write_small_models

from edgekd.backends import BACKENDS
from edgekd.bundle import read_manifest
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.errors import BundleMismatch, InputError
from edgekd.measure.accuracy import evaluate_chain
from edgekd.measure.coco_metrics import encode_masks
from edgekd.measure.latency import BenchOptions, bench_chain
from edgekd.measure.throughput import ThroughputOptions, measure_throughput
from edgekd.package_files import default_models
from edgekd.runtime import cuda
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.engines.tensorrt import TensorRtEngine
from edgekd.runtime.tensorrt_library import tensorrt_library

sys.path.insert(0, str(Path(__file__).parent))
import fake_builder
import fake_plan
import host_cuda

OPTIONS = ChainOptions(DetectOptions(confidence=0.05, max_boxes=7))


@pytest.fixture
def cudart(monkeypatch):
    library = host_cuda.use_host_cuda(monkeypatch)
    yield library
    library.host_reset()
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_small_models(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def bundle(models, tmp_path_factory):
    """A bundle of TensorRT 10.3, as its stand-in builds it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch))
        folder = build(models, tmp_path_factory.mktemp("tensorrt") / "bundle", "tensorrt", box_buckets=(1, 4))
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()
    return folder


@pytest.fixture(scope="module")
def crop_bundle(tmp_path_factory):
    """A bundle of the kind crop, of the same TensorRT."""
    folder = tmp_path_factory.mktemp("crop")
    with pytest.MonkeyPatch.context() as monkeypatch:
        fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch))
        models = write_crop_models(folder / "models")
        build(models, folder / "bundle", "tensorrt", box_buckets=(1, 4), detector_px=(320, 320))
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()
    return folder / "bundle"


@pytest.fixture
def driver(cudart, monkeypatch):
    """TensorRT 10.3 and the picture kernels."""
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    return host_cuda.use_host_driver(monkeypatch)


def build(models, folder, backend, **options):
    build_bundle(models, folder, BuildOptions(backend=backend, precision="fp32", **options), lambda line: None)
    return folder


@pytest.fixture(scope="module")
def reference(models, tmp_path_factory, scene):
    """What ONNX Runtime answers, with the sizes and numbers of boxes that a TensorRT bundle has."""
    folder = build(models, tmp_path_factory.mktemp("reference") / "bundle", "onnxruntime", square=True)
    with Chain.open(folder, n_threads=1) as chain:
        return [chain(picture, OPTIONS) for picture in pictures_of(scene)]


def pictures_of(scene):
    return [scene, scene[:320, :500].copy()]


def assert_same(result, expected):
    np.testing.assert_allclose(result.detections.xyxy, expected.detections.xyxy, atol=1e-3)
    for index in range(len(expected)):
        one, other = result.masks.full(index), expected.masks.full(index)
        assert (one != other).mean() < 1e-5


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.0.0"])
def test_a_chain_answers_as_onnx_runtime(version, models, reference, scene, cudart, monkeypatch, tmp_path):
    fake = fake_builder.use_building_tensorrt(monkeypatch, cudart, version)
    folder = build(models, tmp_path / "bundle", "tensorrt")
    before = cudart.host_live_objects(), cudart.host_device_bytes()
    n_opened = len(fake.engines)  # by the build, which asks the bundle for its known answer
    with Chain.open(folder) as chain:
        assert len(fake.engines) - n_opened == 3
        for _ in range(3):  # plain runs, recordings, replays
            for picture, expected in zip(pictures_of(scene), reference, strict=True):
                assert_same(chain(picture, OPTIONS), expected)
        with ThreadPoolExecutor(2) as pool:
            clones = [chain.clone(), chain.clone()]
            for result in pool.map(lambda clone: clone(scene, OPTIONS), clones):
                assert_same(result, reference[0])
        for clone in clones:
            clone.close()
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == before


def test_embeddings_stay_on_the_gpu(bundle, scene, cudart, monkeypatch):
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    with Chain.open(bundle) as chain:
        n_boxes = len(chain(scene, OPTIONS))
        assert n_boxes == 7, "two calls of the decoder"
        before = [cudart.host_copied_bytes(kind) for kind in (1, 2)]
        chain(scene, OPTIONS)
        to_device, to_host = (cudart.host_copied_bytes(kind) - old for kind, old in zip((1, 2), before, strict=True))
        detector, encoder, boxes = 3 * 320 * 320 * 4, 3 * 256 * 256 * 4, 8 * 4 * 4
        assert to_device == detector + encoder + boxes
        classes = len(chain.manifest.pipeline.class_names)
        assert to_host == 2100 * (64 + classes) * 4 + 8 * (64 * 64 + 1) * 4
        own = chain.embed(scene)
        assert own.shape == (1, 256, 16, 16)
    assert np.isfinite(own).all(), "it outlives the chain"


def on_host(folder, pictures_of, monkeypatch):
    with monkeypatch.context() as context:
        context.setenv("EDGEKD_PICTURES", "host")
        with Chain.open(folder) as chain:
            assert not chain.pictures.on_device
            return [chain(picture, OPTIONS) for picture in pictures_of]


def assert_close(result, expected):
    """One grey level in the inputs moves boxes and masks by little."""
    assert len(result) == len(expected)
    np.testing.assert_allclose(result.detections.xyxy, expected.detections.xyxy, atol=1.0)
    for index in range(len(expected)):
        assert (result.masks.full(index) != expected.masks.full(index)).mean() < 0.01


@pytest.mark.parametrize(("kind", "integrated"), [("sam", False), ("sam", True), ("crop", False)])
def test_the_chain_answers_as_with_pictures_of_the_host(
    kind, integrated, bundle, crop_bundle, scene, cudart, driver, monkeypatch
):  # fmt: skip
    folder = {"sam": bundle, "crop": crop_bundle}[kind]
    cudart.host_set_integrated(integrated)
    seen = [scene, scene[:320, :500].copy(), scene][: 3 if kind == "sam" else 1]
    expected = on_host(folder, seen, monkeypatch)
    before = cudart.host_live_objects(), cudart.host_device_bytes()
    with Chain.open(folder) as chain, chain.clone() as clone:
        assert chain.pictures.on_device and not chain.pictures.reason
        for picture, answer in zip(seen, expected, strict=True):
            for each in (chain, clone):
                result = each(picture, OPTIONS)
                assert_close(result, answer)
                assert "upload" in result.times_ms
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == before


@pytest.mark.parametrize("integrated", [False, True])
def test_a_picture_is_uploaded_once_and_inputs_never(integrated, bundle, scene, cudart, driver):
    cudart.host_set_integrated(integrated)
    with Chain.open(bundle) as chain:
        chain(scene, OPTIONS)
        copied, launches = cudart.host_copied_bytes(1), driver.host_picture_launches()
        chain(scene, OPTIONS)
        boxes = 8 * 4 * 4
        assert cudart.host_copied_bytes(1) - copied == boxes + (0 if integrated else scene.nbytes)
        assert driver.host_picture_launches() - launches == 2, "one for the detector, one for the encoder"


def test_pictures_without_a_box_follow_one_another(bundle, scene, cudart, driver, monkeypatch):
    """The encoder of a picture without boxes may still run while the next picture is uploaded."""
    black = np.zeros_like(scene)
    (expected,) = on_host(bundle, [scene], monkeypatch)
    with Chain.open(bundle) as chain:
        never = ChainOptions(DetectOptions(confidence=0.999))
        for _ in range(3):
            assert not len(chain(black, never))
            assert_close(chain(scene, OPTIONS), expected)
        own = chain.embed(scene)
        chain.embed(black)
        np.testing.assert_array_equal(own, chain.embed(scene))


def test_a_machine_without_the_kernels_says_so(bundle, scene, cudart, monkeypatch, caplog):
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    with Chain.open(bundle) as chain:
        assert len(chain(scene, OPTIONS)) == 7
        assert chain.pictures.reason.startswith("the CUDA driver cannot be loaded")
    (record,) = [record for record in caplog.records if record.name == "edgekd.pictures"]
    assert record.getMessage().startswith("pictures are prepared on the host, not on the GPU: the CUDA driver")
    host_cuda.use_host_driver(monkeypatch)
    monkeypatch.setattr("edgekd.runtime.picture_kernels.cubin_for", lambda sm, family: b"broken")
    with Chain.open(bundle) as chain:
        assert "cannot load the picture kernels: invalid argument" in chain.pictures.reason
    monkeypatch.setenv("EDGEKD_PICTURES", "gpu")
    with pytest.raises(InputError, match="EDGEKD_PICTURES is 'gpu', expected host"):
        Chain.open(bundle)


@pytest.mark.parametrize("kind", ["crop", "yolo-seg"])
def test_the_other_kinds_are_benched_and_evaluated(kind, crop_bundle, scene, cudart, driver, monkeypatch, tmp_path):
    """What the chain says with pictures of the host are the labels; with those of the GPU nearly all must be found."""
    folder = crop_bundle
    if kind == "yolo-seg":
        folder = build(
            write_segment_models(tmp_path / "models"), tmp_path / "bundle", "tensorrt", detector_px=(320, 320)
        )
    (said,) = on_host(folder, [scene], monkeypatch)
    assert len(said) > 3 and said.masks.areas_px().min() > 0
    cv2.imwrite(str(tmp_path / "scene.png"), scene)
    picture = LabelledPicture(
        path=tmp_path / "scene.png", size_px=scene.shape[:2], xyxy=said.detections.xyxy,
        class_id=said.detections.class_id, area_px=said.masks.areas_px().astype(np.float64),
        crowd=np.zeros(len(said), np.bool_), segmentations=tuple(encode_masks(said.masks)),
    )  # fmt: skip
    before = cudart.host_live_objects(), cudart.host_device_bytes()
    with Chain.open(folder) as chain:
        labels = LabelledSet(tmp_path, chain.manifest.pipeline.class_names, (picture,))
        metrics, _ = evaluate_chain(chain, labels)
        # Boxes by the order of their confidence; the masks differ where one grey level crosses the threshold.
        assert metrics["box"]["ap50"] > 0.95 and metrics["mask"]["ap50"] > 0.95
        report = bench_chain(chain, "0", [scene], BenchOptions(0, 2, 0, n_chains=2), OPTIONS)
    assert report.pictures == "GPU" and report.stages["upload"].n == 2
    assert report.throughput.n_pictures == 2
    assert set(report.engines) == set(read_manifest(folder).stages)
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == before


def test_default_buckets_bound_the_memory_of_two_clones(cudart, monkeypatch, tmp_path):
    """The default models at 1024 px: 700 MB of device memory for two chains, by the scratch sizes of a real builder."""
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    most, classes = BACKENDS["tensorrt"].box_buckets[-1], 10
    tensors = {
        "images": [("images", (1, 3, 640, 640)), ("box_logits", (1, 64, 8400)), ("class_logits", (1, classes, 8400))],
        "image": [("image", (1, 3, 1024, 1024)), ("image_embeddings", (1, 256, 64, 64))],
        "boxes": [
            ("image_embeddings", (1, 256, 64, 64)), ("boxes", (-1, 4)), ("predicted_iou", (-1,)),
            ("low_res_masks", (-1, 256, 256)),
        ],
    }  # fmt: skip
    for name, rows in tensors.items():
        path = tmp_path / f"{name}.engine"
        path.write_bytes(fake_plan.write_tensors(rows, name, most, fake_builder.SCRATCH[name]))
    weights = sum(path.stat().st_size for path in default_models().glob("*.onnx"))
    chains = []
    for _ in range(2):
        chain = []
        for name in tensors:
            # The detector has a lane of its own, encoder and decoder share one.
            chain.append(TensorRtEngine.open(tmp_path / f"{name}.engine", False, beside=(*chain[1:], None)[0]))
        for engine in chain[:2]:
            engine._lane.scratch()
        chains.append(chain)
    picture = 3840 * 2160 * 3
    used = cudart.host_device_bytes() + weights + len(chains) * picture
    assert 500e6 < used < 700e6
    for engine in sum(chains, []):
        engine.close()


def test_bench_sees_a_gpu(bundle, scene, cudart, monkeypatch):
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    replayed, call = [], Chain.__call__

    def counted(chain, *arguments, **named):
        launches = cudart.host_graph_launches()
        result = call(chain, *arguments, **named)
        replayed.append(cudart.host_graph_launches() - launches)
        return result

    monkeypatch.setattr(Chain, "__call__", counted)
    with Chain.open(bundle) as chain:
        report = bench_chain(chain, "0", [scene], BenchOptions(0, min_runs=2, min_seconds=0), OPTIONS)
    # The grey picture, two warm-ups and two timed runs: every engine call of the last three replays a graph.
    assert replayed[2:5] == [4, 4, 4], replayed
    assert set(report.engines["encoder"]) == {"h2d", "gpu_compute", "d2h"}
    assert report.backend_version == "10.3.0"


def test_throughput_has_two_pictures_in_the_networks_at_once(bundle, scene, cudart, driver, monkeypatch):
    """Both chains must be inside of a computation together; one that waited for the other would break the barrier."""
    compute, meeting, met = host_cuda.Context._compute, threading.Barrier(2, timeout=60), []
    main = threading.main_thread()

    def meets(context, *arguments):
        if threading.current_thread() is not main and len(met) < 2:
            met.append(meeting.wait())
        return compute(context, *arguments)

    monkeypatch.setattr(host_cuda.Context, "_compute", meets)
    with Chain.open(bundle) as chain:
        found = measure_throughput(chain, [scene], ThroughputOptions(2, 2, 0), OPTIONS)
    assert sorted(met) == [0, 1] and not meeting.broken
    assert found.n_pictures >= 2


def test_another_board_and_another_version_are_refused_before_loading(bundle, cudart, monkeypatch):
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    assert read_manifest(bundle).target.n_multiprocessors == 8
    later = fake_builder.use_building_tensorrt(monkeypatch, cudart, "11.0.0")
    with pytest.raises(BundleMismatch, match=r"built by tensorrt 10.3.0, this machine has 11.0.0; rebuild it here"):
        Chain.open(bundle)
    fake_builder.use_building_tensorrt(monkeypatch, cudart)
    monkeypatch.setattr("edgekd.runtime.target.n_multiprocessors", lambda: 16)
    with pytest.raises(BundleMismatch, match=r"with 8 multiprocessors, this one has 16"):
        Chain.open(bundle)
    assert later.engines == []
