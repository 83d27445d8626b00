"""The example in Rust, compiled against the C library, finds what Python finds."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from toolchain import require, run

from edgekd.runtime.chain import Chain

SOURCE = Path(__file__).parent.parent.parent / "examples/detect.rs"


@pytest.fixture(scope="module")
def program(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("rustc")
    if not (built / "prefix/lib/libedgekd_openvino.so").is_file():
        pytest.skip("the OpenVINO module was not built: this Python's OpenVINO has no headers")
    program, libraries = tmp_path_factory.mktemp("rust") / "detect", built / "prefix/lib"
    flags = ("--edition", "2021", "-D", "warnings", "-L", str(libraries), "-C", f"link-arg=-Wl,-rpath,{libraries}")
    run("rustc", SOURCE, "-o", program, *flags)
    return program


def test_rust_finds_what_python_finds(program: Path, shipped_bundle: Path, scene: np.ndarray, tmp_path: Path) -> None:
    picture = tmp_path / "scene.ppm"
    picture.write_bytes(f"P6 {scene.shape[1]} {scene.shape[0]} 255\n".encode() + scene[:, :, ::-1].tobytes())
    lines = [line.split() for line in run(program, shipped_bundle, picture).splitlines()]
    with Chain.open(shipped_bundle) as chain:
        result = chain(scene)
    assert len(lines) == len(result) > 0
    names = [result.class_names[index] for index in result.detections.class_id]
    assert [line[0] for line in lines] == names
    np.testing.assert_allclose([float(line[1]) for line in lines], result.detections.confidence, atol=1e-3)
    np.testing.assert_allclose([[float(x) for x in line[3:7]] for line in lines], result.detections.xyxy, atol=0.5)
    np.testing.assert_allclose([int(line[8]) for line in lines], result.masks.areas_px(), rtol=0.005)


def test_what_cannot_be_opened_is_one_sentence(program: Path, tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P6 1 1 255\n123")
    (tmp_path / "b.ppm").write_bytes(b"P6 9 9 255\n123")
    for picture, said in (("a.ppm", "manifest"), ("b.ppm", "expected a binary PPM"), ("c.ppm", "cannot be read")):
        command = [str(program), str(tmp_path), str(tmp_path / picture)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
