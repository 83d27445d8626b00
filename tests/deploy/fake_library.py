"""The C++ stand-in for TensorRT, compiled from the public headers of one version, and the C library's module on it.

EDGEKD_TENSORRT_INCLUDE names a folder with one include folder per version, such as `10.3.0/NvInferRuntime.h`: that is
the folder `include` of the public TensorRT repository at that version, or of a local TensorRT. CUDA's headers are
those of the pip packages nvidia-cuda-runtime and nvidia-cuda-crt. Tests that lack one of them skip and say so.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import host_cuda
import pytest
import tensorrt_stubs

from edgekd.capi.build import SOURCES

HERE = Path(__file__).parent
MODULE_SOURCE = SOURCES / "src" / "backends" / "tensorrt.cpp"


def include_of(version: str) -> Path:
    """Return the include folder of a version, or skip."""
    root = os.environ.get("EDGEKD_TENSORRT_INCLUDE")
    if not root:
        pytest.skip("EDGEKD_TENSORRT_INCLUDE is not set: no public headers of TensorRT to compile the stand-in from")
    folder = Path(root) / version
    if not (folder / "NvInferRuntime.h").is_file():
        pytest.skip(f"{folder} holds no NvInferRuntime.h")
    return folder


def cuda_include() -> Path:
    """Return the folder of CUDA's headers, or skip."""
    found = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in found.submodule_search_locations or ()] if found else []
    for root in roots:
        for header in sorted(root.glob("*/include/cuda_runtime_api.h")):
            if (header.parent / "crt" / "host_defines.h").is_file():
                return header.parent
    pytest.skip("no CUDA headers: pip install nvidia-cuda-runtime nvidia-cuda-crt")


def onnxruntime_library() -> str:
    """Return the shared library of the installed ONNX Runtime."""
    folder = Path(importlib.util.find_spec("onnxruntime").origin).parent / "capi"
    return str(next(iter(sorted(folder.glob("libonnxruntime.so*")))))


@functools.cache
def compiled_fake(version: str) -> Path:
    """Compile libnvinfer of a version, under the name that bindings and programs look for."""
    include, cuda = include_of(version), cuda_include()
    folder = Path(tempfile.mkdtemp(prefix="fake-tensorrt-"))
    (folder / "stubs.h").write_text(tensorrt_stubs.stubs(include))
    name = f"libnvinfer.so.{version.split('.')[0]}"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
    flags += [f"-Wl,-soname,{name}", f"-I{folder}", f"-I{HERE}", "-isystem", str(include), "-isystem", str(cuda)]
    compile_cpp(HERE / "fake_nvinfer.cpp", folder / name, [*flags, *linked(host_cuda.compiled()), "-ldl"])
    return folder / name


@functools.cache
def compiled_module(version: str, source: Path = MODULE_SOURCE) -> Path:
    """Compile libedgekd_tensorrt.so against the headers of a version and link it with the stand-in."""
    fake, include = compiled_fake(version), include_of(version)
    target = Path(tempfile.mkdtemp(prefix="fake-module-")) / "libedgekd_tensorrt.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-fvisibility=hidden", "-ffp-contract=off"]
    flags += [f"-I{source.parents[1]}", f"-I{SOURCES / 'include'}", f"-I{SOURCES / 'src'}", "-isystem", str(include)]
    flags += ["-isystem", str(cuda_include()), "-Wl,--no-undefined"]
    compile_cpp(source, target, [*flags, *linked(str(fake)), *linked(host_cuda.compiled())])
    return target


def linked(library: str) -> list[str]:
    """Return the flags that link a library by its file and find it again when the program runs."""
    return [library, f"-Wl,-rpath,{Path(library).parent}"]


def compile_cpp(source: Path, target: Path, flags: list[str]) -> None:
    """Run the C++ compiler; skip where there is none."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    done = subprocess.run(
        [compiler, "-std=c++17", str(source), *flags, "-o", str(target)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
