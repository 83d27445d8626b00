"""Building the CPU library and finding the kernel sources, in a checkout and in an installed package."""

import shutil
import subprocess
import sys

import pytest

from edgekd.errors import BackendUnavailable, BuildError, InputError
from edgekd.files import write_bytes
from edgekd.ops import _cpu_build
from edgekd.ops._cpu_build import compile_cpu_library, find_cpu_library, kernel_sources_dir, library_name, source_hash


def test_sources_of_a_checkout_and_of_an_installation(tmp_path):
    checkout = kernel_sources_dir()
    assert checkout.name == "cuda_kernels"
    package = tmp_path / "edgekd"
    installed = package / "_cuda_kernels" / "csrc"
    installed.mkdir(parents=True)
    (installed / "haar_core.h").write_text("")
    assert kernel_sources_dir(package) == package / "_cuda_kernels"
    with pytest.raises(BackendUnavailable, match="reinstall edgekd"):
        kernel_sources_dir(tmp_path / "nowhere" / "edgekd")


def _cpu_sources():
    csrc = kernel_sources_dir() / "csrc"
    return [csrc / "haar_core.h", *(csrc / "cpu").iterdir()]


def test_the_name_follows_the_sources(tmp_path):
    source = tmp_path / "a.h"
    source.write_text("1")
    before = source_hash([source])
    source.write_text("2")
    assert source_hash([source]) != before
    assert source_hash(_cpu_sources()) in library_name(kernel_sources_dir())


def test_without_a_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BackendUnavailable, match="'no-such-compiler' is not here"):
        compile_cpu_library(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BuildError, match="could not compile the CPU kernels"):
        compile_cpu_library(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_library_is_named(kernel_cache, tmp_path, monkeypatch):
    from edgekd.ops._cpu import _declare

    damaged = tmp_path / "library.so"
    damaged.write_bytes(b"not a library")
    with pytest.raises(BackendUnavailable, match="cannot be loaded .* edgekd kernels compile --cpu"):
        _declare(damaged)


def test_nothing_is_compiled_at_import_or_at_first_use(tmp_path, monkeypatch):
    code = "import torch; from edgekd.ops import haar_dwt2; haar_dwt2(torch.zeros(1, 1, 2, 2))"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_nothing(tmp_path):
    target = tmp_path / "folder"
    target.mkdir()
    with pytest.raises(InputError):
        write_bytes(target, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_the_library_is_found_after_compiling(backend, kernel_cache):
    if backend == "cpu":
        assert find_cpu_library().parent == kernel_cache


def test_a_wheel_for_another_processor(tmp_path, monkeypatch):
    if shutil.which("aarch64-linux-gnu-g++") is None:
        pytest.skip("g++-aarch64-linux-gnu is not installed")
    monkeypatch.setenv("CXX", "aarch64-linux-gnu-g++")
    monkeypatch.setattr(_cpu_build, "FLAGS", ("-O0", *_cpu_build.FLAGS[1:]))
    library = compile_cpu_library(tmp_path, wheel_machine="aarch64")
    header = library.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183  # EM_AARCH64
