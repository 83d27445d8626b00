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

from hypothesis import settings
from once import made_once

SLOWEST = (
    "deploy/test_gate", "test_core_install", "capi/test_programs", "train/distill/test_job",
    "cli/test_training_commands", "train/finetune/test_sam", "ops/test_cpu_kernels", "train/distill/test_resume",
    "runtime/test_chain",
)  # fmt: skip
"""Files that take longest come first, so that no worker of pytest-xdist has one of them left at the end."""

# Where a commit is judged, the same commit must get the same verdict: with this profile the examples of a property
# follow from its name. Everywhere else they are new in every run, and what they find becomes an `@example`.
settings.register_profile("same-examples", derandomize=True)
settings.load_profile(os.environ.get("EDGEKD_TEST_PROFILE", "default"))


def pytest_configure(config: pytest.Config) -> None:
    """Keep this order: by itself pytest-xdist begins with the files of most tests."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    folder = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        name = item.path.with_suffix("").relative_to(folder).as_posix() if item.path.is_relative_to(folder) else ""
        return SLOWEST.index(name) if name in SLOWEST else len(SLOWEST)

    items.sort(key=rank)


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

    options = BuildOptions(precision="fp32", encoder_px=(256, 256))

    def build(folder: Path) -> None:
        build_bundle(default_models(), folder / "openvino", options, lambda line: None)

    return made_once(tmp_path_factory, "shipped", build) / "openvino"


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
