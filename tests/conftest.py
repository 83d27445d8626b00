"""What many tests share: the real assets where they are, a drawn picture, and bundles of the shipped models."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def assets() -> Path:
    """The folder that holds `assets/` and `data/`; tests that ask for it carry the marker `assets`."""
    value = os.environ.get("EDGEKD_ASSETS")
    if not value:
        pytest.skip("EDGEKD_ASSETS is not set: no real weights and pictures to test with")
    return Path(value)


@pytest.fixture(scope="session")
def scene() -> np.ndarray:
    """The drawn demonstration picture, (640, 960, 3) uint8 BGR."""
    from edgekd.package_files import DEMO_PICTURE
    from edgekd.runtime.sources import read_picture

    return read_picture(DEMO_PICTURE)


@pytest.fixture(scope="session")
def shipped_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An fp32 OpenVINO bundle of the shipped models, with a small segmenter input for speed."""
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.package_files import default_models

    folder = tmp_path_factory.mktemp("bundles") / "openvino"
    build_bundle(default_models(), folder, BuildOptions(precision="fp32", encoder_px=(256, 256)), lambda line: None)
    return folder


@pytest.fixture(scope="session")
def kernel_code(tmp_path_factory):
    """A function cubin -> {kernel name: its machine code as text}, by the disassembler that Triton brings."""
    triton = pytest.importorskip("triton")
    disassembler = next(Path(triton.__file__).parent.rglob("bin/nvdisasm"), None)
    if disassembler is None:
        pytest.skip("this Triton brings no nvdisasm")

    def disassemble(cubin):
        file = tmp_path_factory.mktemp("sass") / "kernel.cubin"
        file.write_bytes(cubin)
        text = subprocess.run([disassembler, "-c", file], check=True, capture_output=True, text=True).stdout
        sections = re.split(r"\.section\s+\.text\.", text)[1:]
        return {section.split(",")[0]: section for section in sections}

    return disassemble
