"""`edgekd capi`: flags of an installed library, and sentences where something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.capi.build import build_library, compiler_flags, linker_flags
from edgekd.cli.capi import app
from edgekd.errors import BackendUnavailable


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libedgekd.so").touch()
    return tmp_path


def test_flags(prefix: Path) -> None:
    done = CliRunner().invoke(app, ["--cflags", "--libs", "--prefix", str(prefix)])
    assert done.exit_code == 0
    assert done.output.strip() == f"-I{prefix}/include -L{prefix}/lib -Wl,-rpath,{prefix}/lib -ledgekd"
    assert [*compiler_flags(prefix), *linker_flags(prefix)] == done.output.split()


def test_without_options_it_shows_the_help() -> None:
    done = CliRunner().invoke(app, [])
    assert done.exit_code == 0
    assert "--cflags" in done.output and "build" in done.output


def test_not_built(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["--libs", "--prefix", str(tmp_path)])
    assert isinstance(done.exception, BackendUnavailable)
    assert "edgekd capi build -o" in str(done.exception)


def test_no_cmake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match="apt install cmake"):
        build_library(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cmake = tmp_path / "cmake"
    cmake.write_text("#!/bin/sh\necho 'CMake Error: no C++ compiler'\nexit 1\n")
    cmake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BackendUnavailable, match=r"cannot be configured \(CMake Error: no C"):
        build_library(tmp_path / "out")
