"""A bundle proves itself: what is not as it was built is refused, or does not give its known answer."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_files import counted_opens, flip, replace_file, rewrite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgekd
from edgekd.bundle import SIGNATURE_NAME, check_files, read_manifest
from edgekd.errors import BundleError
from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
STAGES = ("detector", "encoder", "decoder")
FILES = ("manifest.json", "known_answer.png", *(f"{name}.{suffix}" for name in STAGES for suffix in ("xml", "bin")))


@pytest.fixture(scope="module")
def copy(shipped_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(shipped_bundle, tmp_path_factory.mktemp("proof") / "b"))


@pytest.fixture
def bundle(copy: Path, shipped_bundle: Path) -> Path:
    shutil.copytree(shipped_bundle, copy, dirs_exist_ok=True)
    return copy


@few
@given(name=st.sampled_from(FILES), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_refused(copy: Path, name: str, place: float, bit: int) -> None:
    path = copy / name
    at = int(place * path.stat().st_size)
    flip(path, at, bit)
    try:
        with pytest.raises(BundleError):
            check_files(copy, read_manifest(copy))
    finally:
        flip(path, at, bit)
    check_files(copy, read_manifest(copy))


def test_a_swapped_file_is_refused(bundle: Path) -> None:
    shutil.copy(bundle / "encoder.bin", bundle / "detector.bin")
    with pytest.raises(BundleError, match="sha256 differs"):
        edgekd.load(bundle)


def test_a_stage_swapped_with_fitting_hashes_is_refused(bundle: Path) -> None:
    for suffix in ("xml", "bin"):
        replace_file(bundle, f"detector.{suffix}", (bundle / f"encoder.{suffix}").read_bytes())
    with pytest.raises(BundleError, match="lacks the input images, unlike its manifest"):
        edgekd.load(bundle)


def weight_at(graph: str, place: float) -> tuple[np.dtype[Any], int]:
    """Type and offset of the weight at a share of all weights; the other constants are shapes and indices."""
    found = re.findall(r'element_type="(f16|f32)"[^>]* offset="(\d+)" size="(\d+)"', graph)
    starts = np.cumsum([0, *(int(size) for _, _, size in found)])
    index = int(np.searchsorted(starts, place * starts[-1], side="right")) - 1
    dtype = np.dtype(np.float16 if found[index][0] == "f16" else np.float32)
    inside = int(place * starts[-1] - starts[index]) // dtype.itemsize * dtype.itemsize
    return dtype, int(found[index][1]) + inside


@settings(few, max_examples=6)
@given(name=st.sampled_from(STAGES), place=st.floats(0, 1, exclude_max=True))
def test_one_nan_weight_with_a_fitting_hash_is_refused(
    copy: Path, shipped_bundle: Path, name: str, place: float
) -> None:
    """Whatever lies behind it: a ReLU turns NaN into 0, and a mask of another point would hide it."""
    shutil.copytree(shipped_bundle, copy, dirs_exist_ok=True)
    weights = bytearray((shipped_bundle / f"{name}.bin").read_bytes())
    dtype, at = weight_at((shipped_bundle / f"{name}.xml").read_text(), place)
    weights[at : at + dtype.itemsize] = np.array([np.nan], dtype).tobytes()
    replace_file(copy, f"{name}.bin", bytes(weights))
    try:
        with pytest.raises(BundleError, match="a weight that is NaN"):
            edgekd.load(copy, n_threads=1)
    finally:
        shutil.copytree(shipped_bundle, copy, dirs_exist_ok=True)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_one_nan_weight_of_an_onnx_graph_is_refused(dtype: str, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 18]> graph (float[4] x) => (float[4] y) { y = Relu(x) }'
    )
    weights = np.arange(4, dtype=dtype)
    weights[2] = np.nan
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    with pytest.raises(BundleError, match="holds NaN"):
        OnnxRuntimeEngine.open(tmp_path / "a.onnx", 1, (model.SerializeToString(),))


def pipeline(part: str, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda manifest: manifest["pipeline"][part].update(values)


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "mean": pipeline("detector_input", mean=[60, 60, 60]),
    "std": pipeline("encoder_input", std=[57, 57, 58]),
    "pad": pipeline("detector_input", pad=[113, 114, 114]),
    "place": pipeline("detector_input", place="top_left"),
    "classes": pipeline("head", end2end=True),
    "most boxes": lambda manifest: manifest.update(max_boxes=299),
    "date": lambda manifest: manifest.update(created=""),
    "answer": lambda manifest: manifest["known_answer"]["found"].pop(),
    "limit of the gate": lambda manifest: manifest.update(
        gate={"passed": True, "measured": {}, "limits": {"box_ap": 9}, "n_images": 1}
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_one_changed_number_is_refused(name: str, bundle: Path) -> None:
    path = bundle / "manifest.json"
    built = read_manifest(bundle).digest
    rewrite(bundle, CHANGES[name])
    path.write_text(path.read_text().replace(str(read_manifest(bundle).digest), str(built)))
    with pytest.raises(BundleError, match="changed after the build"):
        edgekd.load(bundle)


def test_a_changed_number_with_a_fitting_digest_does_not_give_the_known_answer(bundle: Path) -> None:
    """The others are in test_known_answer.py; what changes no answer is for a signature to find."""
    rewrite(bundle, CHANGES["place"])
    with pytest.raises(BundleError, match="does not answer as it did"):
        edgekd.load(bundle, verify=True)


def test_every_listed_file_is_opened_once_and_no_other(bundle: Path) -> None:
    (bundle / "unlisted.bin").write_bytes(b"x")
    (bundle / SIGNATURE_NAME).write_text("not asked for")
    with counted_opens(bundle) as opens:
        edgekd.load(bundle, verify=True).close()
    assert opens == dict.fromkeys(FILES, 1)
