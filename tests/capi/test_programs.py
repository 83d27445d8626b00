"""The C test programs, plain, under sanitizers, as fuzz targets, and cross-compiled."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path

import pytest
from toolchain import cmake, require, run

import edgekd
from edgekd.capi.build import SOURCES

GOLDEN = Path(__file__).parent.parent / "golden"
SMALL = (
    "-DEDGEKD_TESTS=ON",
    "-DEDGEKD_EXAMPLES=OFF",
    "-DCMAKE_DISABLE_FIND_PACKAGE_OpenVINO=ON",
    "-DCMAKE_BUILD_TYPE=None",
    "-DCMAKE_UNITY_BUILD=ON",  # all sources at once: the headers are read once
    "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0",
)
FUZZ_SECONDS = 4


def test_abi(built: Path) -> None:
    tests = built / "tests"
    assert "all hold" in run(tests / "test_abi", tests / "bundle", tests / "backends")


def test_golden_vectors(built: Path) -> None:
    assert "cleanup" in run(built / "tests" / "test_golden", GOLDEN)


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers(sanitizer: str, tmp_path: Path) -> None:
    options = (*SMALL, f"-DEDGEKD_SANITIZER={sanitizer}", "-DCMAKE_C_FLAGS=-O1", "-DCMAKE_CXX_FLAGS=-O1")
    tests = cmake(tmp_path, *options, targets=("test_abi", "edgekd_fake", "test_golden")) / "tests"
    assert "10000 calls" in run(tests / "test_abi", tests / "bundle", tests / "backends", "10000")
    assert "cleanup" in run(tests / "test_golden", GOLDEN)


def test_fuzz_targets(tmp_path: Path) -> None:
    """A short run from the kept corpus; `cmake --build BUILD --target fuzz` is the long one."""
    require("clang", "clang++")
    compilers = ("-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++")
    tests = cmake(tmp_path, *SMALL, *compilers, targets=("fuzz_manifest", "fuzz_options")) / "tests"
    for name in ("manifest", "options"):
        corpus = shutil.copytree(SOURCES / "tests" / "fuzz_corpus" / name, tmp_path / name)
        # libFuzzer reads the largest resident size from getrusage, which a child inherits from this process; a limit on
        # single allocations is what is left.
        limits = ("-rss_limit_mb=0", "-malloc_limit_mb=512")
        run(tests / f"fuzz_{name}", f"-max_total_time={FUZZ_SECONDS}", "-max_len=8192", *limits, corpus)


def test_cross_build_for_aarch64(tmp_path: Path) -> None:
    """Everything that needs no backend; the test programs run too where an emulator is installed."""
    require("aarch64-linux-gnu-g++", "aarch64-linux-gnu-gcc")
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={SOURCES / 'cmake' / 'aarch64-linux-gnu.cmake'}"
    build = cmake(tmp_path, *SMALL, toolchain, targets=("edgekd", "edgekd_fake", "test_abi", "test_golden"))
    assert (build / "libedgekd.so").read_bytes()[18:20] == b"\xb7\x00"  # e_machine EM_AARCH64
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None or platform.machine() == "aarch64":
        pytest.skip("compiled; not run, no qemu-aarch64 on this machine")
    run(emulator, "-L", "/usr/aarch64-linux-gnu", build / "tests" / "test_golden", GOLDEN)


CONSUMER = """
cmake_minimum_required(VERSION 3.18)
project(consumer C)
find_package(edgekd 0.1 REQUIRED)
add_executable(consumer main.c)
target_link_libraries(consumer PRIVATE edgekd::edgekd)
"""
MAIN = """
#include <edgekd.h>
#include <stdio.h>
int main(void) { puts(edgekd_version()); return edgekd_abi_version() != EDGEKD_ABI_VERSION; }
"""


def test_find_package(built: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(CONSUMER)
    (tmp_path / "main.c").write_text(MAIN)
    run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={built / 'prefix'}")
    run("cmake", "--build", tmp_path / "b")
    assert run(tmp_path / "b" / "consumer") == f"{edgekd.__version__}\n"


def test_pkg_config(built: Path, tmp_path: Path) -> None:
    require("pkg-config")
    lib = built / "prefix" / "lib"
    flags = run("pkg-config", "--cflags", "--libs", "edgekd", PKG_CONFIG_PATH=str(lib / "pkgconfig")).split()
    (tmp_path / "main.c").write_text(MAIN)
    run("cc", tmp_path / "main.c", "-o", tmp_path / "main", *flags)
    assert run(tmp_path / "main", LD_LIBRARY_PATH=str(lib)) == f"{edgekd.__version__}\n"
