"""The C library and its test programs, compiled once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from once import made_once
from toolchain import cmake, run

from edgekd.capi.build import cmake_options
from edgekd.capi.library import Library


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain build with tests, the example and the OpenVINO module, installed in its folder `prefix`."""
    options = {**cmake_options(), "EDGEKD_TESTS": "ON", "EDGEKD_EXAMPLES": "ON"}

    def build(folder: Path) -> None:
        cmake(folder, *(f"-D{name}={value}" for name, value in options.items()))
        run("cmake", "--install", folder, "--prefix", folder / "prefix")

    return made_once(tmp_path_factory, "capi", build)


@pytest.fixture(scope="session")
def library(built: Path) -> Library:
    return Library(built / "prefix" / "lib" / "libedgekd.so")
