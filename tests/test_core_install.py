"""`pip install edgekd` without extras runs bundles: no torch, no Ultralytics, no ONNX in sight."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ABSENT = ("torch", "ultralytics", "onnx", "onnxruntime", "timm", "transformers")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of a fresh environment with the core install."""
    folder = tmp_path_factory.mktemp("core") / "venv"
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if sys.platform == "win32" else "bin")
    environment = dict(os.environ)
    if shutil.which("g++"):
        compiler = (
            folder.parent / "g++"
        )  # the kernels are built into the wheel; optimised they would take half a minute
        compiler.write_text('#!/bin/sh\nexec g++ "$@" -O0\n')
        compiler.chmod(0o755)
        environment["CXX"] = str(compiler)
    command = [str(scripts / "python"), "-m", "pip", "install", "-q", "--no-compile", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr
    return scripts


def test_nothing_heavy_is_installed(core: Path) -> None:
    code = f"import importlib.util as u; print([n for n in {ABSENT} if u.find_spec(n)])"
    done = subprocess.run([str(core / "python"), "-c", code], capture_output=True, text=True, check=True, cwd=core)
    assert done.stdout.strip() == "[]"
    libraries = list(core.parent.glob("lib*/python*/site-packages/edgekd/_native/libedgekd_haar-*"))
    assert bool(libraries) == bool(shutil.which("g++"))


def test_the_demo_runs_from_the_installed_package(core: Path, tmp_path: Path) -> None:
    """As on a slow processor: what is measured takes most of the time, and two runs show that it works."""
    code = "from edgekd.cli.main import main; from edgekd.deploy import demonstration as demo; demo._SLOW_S = 0; main()"
    done = subprocess.run(
        [str(core / "python"), "-c", code, "demo", "-o", str(tmp_path / "demo")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "total" in done.stdout
    for name in ("demo_overlay.jpg", "results.json", "latency.json", "bundle/manifest.json", "crop/demo_overlay.jpg"):
        assert (tmp_path / "demo" / name).is_file()


def test_what_needs_an_extra_says_which(core: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pt").touch()
    for command, extra in (
        (["export", "--detector", "a.pt", "--segmenter", "a.pt", "-o", "models"], "edgekd[build]"),
        (["build-engine", "models", "-o", "b", "--backend", "onnxruntime"], "edgekd[device]"),
        (["kernels", "info"], "edgekd[build]"),
    ):
        done = subprocess.run(
            [str(core / "edgekd"), *command], capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert done.returncode == 1, done.stderr
        assert extra in done.stderr and done.stderr.count("\n") == 1, done.stderr
