"""The wheels of the real bindings, unpacked, and the libraries that each major version of them asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import fetch_tensorrt_bindings
import pytest

LIBRARIES = {
    "8": ("nvinfer.so.8", "nvonnxparser.so.8", "nvinfer_plugin.so.8", "nvparsers.so.8"),
    "10": ("nvinfer.so.10", "nvonnxparser.so.10", "nvinfer_plugin.so.10"),
    "11": ("nvinfer.so.11", "nvonnxparser.so.11", "nvinfer_plugin.so.11"),
    "1": ("tensorrt_rtx.so.1", "tensorrt_onnxparser_rtx.so.1"),
}


def unpacked(version, folder):
    """Unpack a release's bindings, downloading them when they are not in the cache."""
    default = Path.home() / ".cache" / "edgekd" / "tensorrt-wheels"
    cache = Path(os.environ.get("EDGEKD_TENSORRT_WHEELS", default))
    wheel = fetch_tensorrt_bindings.wheel_of(version, cache)
    if wheel is None:
        failure = fetch_tensorrt_bindings.fetch(version, cache)
        if failure:
            pytest.skip(f"TensorRT {version} is not in {cache.name} and cannot be downloaded: {failure}")
        wheel = fetch_tensorrt_bindings.wheel_of(version, cache)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def compile_stubs(folder: Path) -> Path:
    """Compile stub libraries of all majors, under the names that the bindings are linked to; return their folder."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stub libraries")
    folder.mkdir(exist_ok=True)
    source = Path(__file__).with_name("tensorrt_stub.c")
    for name in {name for names in LIBRARIES.values() for name in names}:
        target = folder / f"lib{name}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,lib{name}", "-o", str(target), str(source)]
        subprocess.run(command, check=True)
    return folder
