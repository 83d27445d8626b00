"""The header is the manual: plain C of every age, and its example is a program."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path

import pytest
from toolchain import require, run

import edgekd
from edgekd.capi.build import SOURCES
from edgekd.capi.library import SIGNATURES, Image, Library, Object, OpenOptions, RunOptions, Times

HEADER = SOURCES / "include" / "edgekd.h"
EXAMPLE_LINE = re.compile(r"^ \*     (.*)$|^ \*$")


def example() -> str:
    """The lines of the header's comment that are indented as code, from the first #include on."""
    comment = HEADER.read_text().split("*/")[0]
    start = comment.index(" * Example")
    end = comment.index(" * Threads")
    lines = [line.removeprefix(" *     ").removeprefix(" *") for line in comment[start:end].splitlines()[2:]]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("compiler", "standard"),
    [("cc", "c99"), ("cc", "c11"), ("c++", "c++17"), ("clang", "c99")],
)
@pytest.mark.parametrize("content", ["alone", "example"])
def test_compiles_without_a_warning(compiler: str, standard: str, content: str, tmp_path: Path) -> None:
    require(compiler)
    text = "#include <edgekd.h>\nint main(void) { return 0; }\n" if content == "alone" else example()
    source = tmp_path / ("main.cpp" if standard == "c++17" else "main.c")
    source.write_text(text)
    flags = (f"-std={standard}", "-pedantic", "-Wall", "-Wextra", "-Werror", "-fsyntax-only")
    run(compiler, *flags, f"-I{HEADER.parent}", source)


def test_includes_only_the_two_standard_headers() -> None:
    assert re.findall(r"^#include (.*)$", HEADER.read_text(), re.M) == ["<stddef.h>", "<stdint.h>"]


def test_example_is_the_whole_one() -> None:
    assert "edgekd_chain_close(chain);" in example()
    assert example().count("{") == example().count("}")


def declared() -> set[str]:
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    return set(re.findall(r"EDGEKD_API [^;(]*?(edgekd_\w+)\(", text))


def test_mirror_declares_every_function() -> None:
    assert set(SIGNATURES) == declared()


def test_exports_are_the_header_and_nothing_else(built: Path) -> None:
    require("nm")
    exported = run("nm", "-D", "--defined-only", built / "prefix" / "lib" / "libedgekd.so").split("\n")
    names = {line.split()[2].split("@")[0] for line in exported if line and line.split()[1] != "A"}
    assert names == declared()


def test_modules_export_their_entry_alone(built: Path) -> None:
    require("nm")
    for module in (built / "prefix" / "lib").glob("libedgekd_*.so"):
        lines = run("nm", "-D", "--defined-only", module).strip().split("\n")
        assert {line.split()[2].split("@")[0] for line in lines if line.split()[1] != "A"} == {"edgekd_backend_entry"}


def test_library_needs_no_backend(built: Path) -> None:
    require("readelf")
    needed = re.findall(r"NEEDED.*\[(.*)\]", run("readelf", "-d", built / "prefix" / "lib" / "libedgekd.so"))
    assert not [name for name in needed if re.search("openvino|nvinfer|cuda|opencv|python", name)]


def test_soname_carries_the_abi(built: Path) -> None:
    require("readelf")
    assert "[libedgekd.so.1]" in run("readelf", "-d", built / "prefix" / "lib" / "libedgekd.so")


def test_mirror_has_the_layouts_of_the_abi() -> None:
    """The same numbers as `test_layouts` in edgekd/capi/tests/abi_versions.c, on a 64-bit machine."""
    structs = (Image, OpenOptions, RunOptions, Object, Times)
    assert [ctypes.sizeof(struct) for struct in structs] == [32, 24, 48, 44, 44]


def test_library_is_of_this_release(library: Library) -> None:
    assert library.calls.edgekd_version().decode() == edgekd.__version__
