"""The packages of the extra `device`: what they are, and the sentence where they are not."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement

from edgekd.deploy import build
from edgekd.errors import BackendUnavailable

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What setup.py tells setuptools."""
    told: dict[str, object] = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    monkeypatch.setattr(sys, "argv", ["setup.py", "--version"])
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    return told


def test_the_extra_brings_what_is_asked_for_and_nothing_heavy(metadata) -> None:
    names = {Requirement(line).name for line in metadata["extras_require"]["device"]}
    assert names == set(build.PACKAGES)


@pytest.mark.parametrize(
    ("release", "wanted"),
    [("5.15.148-tegra", False), ("6.8.12-tegra", False), ("6.1.0-28-arm64", True), ("6.6.51+rpt-rpi-v8", True)],
)
def test_openvino_is_left_out_on_a_jetson(metadata, release: str, wanted: bool) -> None:
    lines = [Requirement(line) for line in metadata["install_requires"]]
    openvino = next(line for line in lines if line.name == "openvino")
    assert openvino.marker.evaluate({"platform_release": release}) == wanted
    assert [Requirement(line).name for line in metadata["extras_require"]["cpu"]] == ["openvino"]
    assert "nvidia-cuda-runtime" in metadata["extras_require"]["rtx"]


@pytest.mark.parametrize("backend", ["tensorrt", "tensorrt-rtx", "onnxruntime"])
def test_a_core_install_is_told_what_to_install(backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(build, "has_module", lambda name: name != "onnx")
    with pytest.raises(BackendUnavailable, match=r"^onnx cannot be imported .* pip install 'edgekd\[device\]'$"):
        build.build_bundle(tmp_path, tmp_path / "bundle", build.BuildOptions(backend=backend))
