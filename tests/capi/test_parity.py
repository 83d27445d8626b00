"""Same bundle, same picture: C and Python give the same boxes and masks."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from small_models import write_small_models
from toolchain import run

import edgekd
from edgekd.bundle import read_manifest
from edgekd.capi.build import SOURCES
from edgekd.capi.library import CChain, Library
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.preprocess import place
from edgekd.runtime.segment import MaskOptions
from edgekd.types import ChainResult

N_PICTURES = 20
# Low, so that boxes are compared in every picture; the clean-up runs too.
OPTIONS = ChainOptions(DetectOptions(confidence=0.05, max_boxes=8), MaskOptions(min_region_px=50))


# (height, width) of crops of the scene, more than an engine keeps sizes for: 2:1, 3:2, nearly square, 3:4, narrow, 7:8,
# 9:16, 5:4.
CROPS_PX = ((480, 960), (640, 960), (620, 640), (640, 480), (630, 200), (640, 560), (640, 360), (500, 640))


@pytest.fixture(scope="module")
def module(built: Path) -> None:
    if not (built / "prefix" / "lib" / "libedgekd_openvino.so").is_file():
        pytest.skip("the OpenVINO module was not built: this Python's OpenVINO has no headers")


@pytest.fixture(scope="module")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_models(tmp_path_factory.mktemp("parity") / "models")


@pytest.fixture(scope="module", params=["sizes", "square"])
def small_bundle(request: pytest.FixtureRequest, module: None, small_models: Path) -> Path:
    folder = small_models.parent / request.param
    options = BuildOptions(precision="fp32", square=request.param == "square")
    build_bundle(small_models, folder, options, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def chains(library: Library, module: None, shipped_bundle: Path) -> Iterator[tuple[Chain, CChain]]:
    with Chain.open(shipped_bundle, 2) as python, CChain.open(library, shipped_bundle, 2) as c:
        yield python, c


def assert_same(python: ChainResult, c: ChainResult) -> None:
    assert len(c) == len(python)
    assert c.class_names == python.class_names
    np.testing.assert_allclose(c.detections.xyxy, python.detections.xyxy, atol=0.5)
    assert (c.detections.corners is None) == (python.detections.corners is None)
    if c.detections.corners is not None and python.detections.corners is not None:
        np.testing.assert_allclose(c.detections.corners, python.detections.corners, atol=0.5)
    np.testing.assert_allclose(c.detections.confidence, python.detections.confidence, atol=1e-3)
    np.testing.assert_array_equal(c.detections.class_id, python.detections.class_id)
    np.testing.assert_allclose(c.masks.predicted_iou, python.masks.predicted_iou, atol=1e-3)
    for index in range(len(python)):
        one, other = python.masks.full(index), c.masks.full(index)
        union = (one | other).sum()
        assert union == 0 or (one & other).sum() / union >= 0.995


def test_scene(chains: tuple[Chain, CChain], scene: np.ndarray) -> None:
    python, c = chains
    result = python(scene, OPTIONS)
    assert len(result) > 0
    assert_same(result, c(scene, OPTIONS))


def test_rows_that_lie_apart(chains: tuple[Chain, CChain], scene: np.ndarray) -> None:
    python, c = chains
    part = scene[100:501, 37:640]
    assert_same(python(np.ascontiguousarray(part), OPTIONS), c(part, OPTIONS))


def crops(scene: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(scene[:height, :width]) for height, width in CROPS_PX]


def test_every_input_size(library: Library, small_bundle: Path, scene: np.ndarray) -> None:
    pipeline = read_manifest(small_bundle).pipeline
    n_sizes = len({place(size, pipeline.detector_input).input_px for size in CROPS_PX})
    assert n_sizes == (1 if small_bundle.name == "square" else len(CROPS_PX))
    with Chain.open(small_bundle, 2) as python, CChain.open(library, small_bundle, 2) as c:
        results = [python(picture, OPTIONS) for picture in crops(scene)]
        assert sum(map(len, results)) > 0
        # In reverse the last sizes are still kept, and the first ones have been given up.
        pairs = [*zip(crops(scene), results, strict=True)]
        for picture, result in [*pairs, *reversed(pairs)]:
            assert_same(result, c(picture, OPTIONS))


def test_clones_meet_new_sizes_at_once(library: Library, small_bundle: Path, scene: np.ndarray) -> None:
    with CChain.open(library, small_bundle, 1) as c, ThreadPoolExecutor(2) as pool:
        copies = [c.clone(), c.clone()]
        orders = crops(scene)[:3], crops(scene)[2::-1]
        runs = [pool.submit(lambda i=i: [copies[i](picture, OPTIONS) for picture in orders[i]]) for i in range(2)]
        first, second = (run.result() for run in runs)
        for one, other in zip(first, second[::-1], strict=True):
            assert_same(one, other)
        for copy in copies:
            copy.close()


def test_given_boxes(chains: tuple[Chain, CChain], scene: np.ndarray) -> None:
    python, c = chains
    height, width = scene.shape[:2]
    boxes = np.array([[10, 10, 200, 300], [0, 0, width, height], [50.5, 60.25, 51, 61]] * 7, np.float32)
    assert_same(python(scene, OPTIONS, boxes), c(scene, OPTIONS, boxes))


def test_clone(chains: tuple[Chain, CChain], scene: np.ndarray) -> None:
    _, c = chains
    copy = c.clone()
    assert_same(c(scene, OPTIONS), copy(scene, OPTIONS))
    copy.close()


def test_bus(chains: tuple[Chain, CChain]) -> None:
    spec = importlib.util.find_spec("ultralytics")
    if spec is None or spec.origin is None:
        pytest.skip("ultralytics is not installed: no bus.jpg")
    python, c = chains
    picture = edgekd.read_picture(str(Path(spec.origin).parent / "assets" / "bus.jpg"))
    assert_same(python(picture, OPTIONS), c(picture, OPTIONS))


def test_an_11_bit_picture(chains: tuple[Chain, CChain], scene: np.ndarray, tmp_path: Path) -> None:
    """The C library is given pixels: those of `read_picture`, whatever the file held."""
    python, c = chains
    cv2.imwrite(str(tmp_path / "deep.png"), scene.astype(np.uint16) * 8)
    picture = edgekd.read_picture(tmp_path / "deep.png")
    np.testing.assert_array_equal(picture, scene)
    assert_same(python(scene, OPTIONS), c(picture, OPTIONS))


@pytest.mark.assets
def test_aerial_pictures(chains: tuple[Chain, CChain], assets: Path) -> None:
    python, c = chains
    folder = assets / "data" / "nwpu_vhr10"
    images = json.loads((folder / "annotations.json").read_text())["images"]
    n_boxes = 0
    for image in images[:: len(images) // N_PICTURES][:N_PICTURES]:
        picture = edgekd.read_picture(str(folder / "images" / image["file_name"]))
        result = python(picture, OPTIONS)
        assert_same(result, c(picture, OPTIONS))
        n_boxes += len(result)
    assert n_boxes > 0


def test_example_program(built: Path, shipped_bundle: Path, scene: np.ndarray, tmp_path: Path) -> None:
    height, width = scene.shape[:2]
    picture = tmp_path / "scene.ppm"
    picture.write_bytes(f"P6 {width} {height} 255\n".encode() + scene[:, :, ::-1].tobytes())
    printed = run(built / "detect_and_segment", shipped_bundle, picture, tmp_path / "labels.pgm")
    with Chain.open(shipped_bundle) as chain:
        result = chain(scene)
    lines = printed.splitlines()
    assert len(lines) == len(result) + 1 and lines[-1].startswith("total ")
    assert (tmp_path / "labels.pgm").stat().st_size == len(f"P5 {width} {height} 255\n") + width * height


SHOW = """
#define main example_main
#include "detect_and_segment.c"
#undef main
int main(int argc, char **argv)
{
    picture from = {NULL, 0, 0};
    if (argc < 2 || !read_picture(argv[1], &from)) return 1;
    printf("P6 %u %u 255\\n", from.width_px, from.height_px);
    fwrite(from.rgb, 3, (size_t)from.width_px * from.height_px, stdout);
    return 0;
}
"""


def test_the_example_turns_a_picture_as_the_python_reader_does(built: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    if not Path("/usr/include/jpeglib.h").is_file():
        pytest.skip("libjpeg is not installed; on Debian: apt install libjpeg-dev")
    (tmp_path / "show.c").write_text(SHOW)
    prefix = built / "prefix"
    words = (
        f"-I{prefix}/include",
        f"-I{SOURCES}/examples",
        "-DEDGEKD_HAVE_JPEG",
        f"-L{prefix}/lib",
        "-ledgekd",
        "-ljpeg",
    )
    run("cc", tmp_path / "show.c", "-o", tmp_path / "show", *words, f"-Wl,-rpath,{prefix}/lib")
    ramp = np.mgrid[:40, :64].astype(np.uint8) * 3
    picture = np.dstack([ramp[0], ramp[1], np.full((40, 64), 90, np.uint8)])
    for orientation in range(10):
        made = image.fromarray(picture)
        exif = made.getexif()
        exif[0x010F], exif[0x0112] = "a maker", orientation
        made.save(tmp_path / "a.jpg", exif=exif if orientation else b"", quality=95)
        with (tmp_path / "a.ppm").open("wb") as shown_file:
            subprocess.run([tmp_path / "show", tmp_path / "a.jpg"], stdout=shown_file, check=True)
        shown, expected = cv2.imread(str(tmp_path / "a.ppm")), edgekd.read_picture(tmp_path / "a.jpg")
        assert shown is not None and shown.shape == expected.shape, orientation
        assert int(cv2.absdiff(shown, expected).max()) <= 2, orientation
