"""Stub libraries of TensorRT, compiled once for all tests that import its real bindings."""

from __future__ import annotations

import pytest
from tensorrt_wheels import compile_stubs


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory):
    """Stub libraries of all majors, under the names that the bindings are linked to."""
    return compile_stubs(tmp_path_factory.mktemp("stubs"))
