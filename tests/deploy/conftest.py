"""Stub libraries of TensorRT, compiled once for all tests that import its real bindings."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tensorrt_wheels import LIBRARIES


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory):
    """Stub libraries of all majors, under the names that the bindings are linked to."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stub libraries")
    folder = tmp_path_factory.mktemp("stubs")
    source = Path(__file__).with_name("tensorrt_stub.c")
    for name in {name for names in LIBRARIES.values() for name in names}:
        target = folder / f"lib{name}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,lib{name}", "-o", str(target), str(source)]
        subprocess.run(command, check=True)
    return folder
