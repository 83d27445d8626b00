"""Compile the CPU kernels once into a throw-away cache, and fill every uninitialised tensor with NaN."""

import shutil

import pytest
import torch
from once import made_once

from edgekd.files import cache_folder
from edgekd.ops import _cpu, _cpu_build, _dispatch
from edgekd.ops._cpu_build import compile_cpu_library, find_compiler, find_cpu_library


@pytest.fixture(scope="session")
def kernel_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cache")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(folder))
    patch.setattr(_cpu_build, "PACKAGE_DIR", folder)
    if find_compiler() is not None:
        shutil.copytree(made_once(tmp_path_factory, "kernels", compile_cpu_library), cache_folder("kernels"))
    for cached in (find_cpu_library, _cpu.library, _dispatch._decide):
        cached.cache_clear()
    yield cache_folder("kernels")
    patch.undo()


@pytest.fixture(autouse=True)
def _poisoned_memory(kernel_cache):
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)  # fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(params=["reference", "cpu"])
def backend(request, kernel_cache):
    if request.param == "cpu" and find_cpu_library() is None:
        pytest.skip("no C++ compiler on this machine")
    return request.param
