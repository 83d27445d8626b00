"""CUDA source in, a cubin out, without a CUDA toolkit and without a GPU: NVIDIA's run-time compiler through ctypes.

The library comes with PyTorch's CUDA build (package nvidia-cuda-nvrtc) or with a toolkit. The kernels include no CUDA
header, so nothing else is needed.
"""

import ctypes
import ctypes.util
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from edgekd.errors import BackendUnavailable, BuildError
from edgekd.files import cache_folder, write_bytes
from edgekd.ops.sources import source_hash

MAIN_SOURCE = "haar_kernels.cu"
OPTIONS = ("--std=c++17", "-default-device", "--fmad=true")
INSTALL = "install PyTorch with CUDA, or the package nvidia-cuda-nvrtc"


class Nvrtc(NamedTuple):
    """A loaded compiler and its version."""

    library: ctypes.CDLL
    version: tuple[int, int]


def load_nvrtc(path: Path | None = None) -> Nvrtc:
    """Load the compiler at path, or the first that the installed packages and the system's loader offer."""
    names = [str(path)] if path else list(_candidates())
    problems = []
    for name in names:
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            problems.append(str(error))
            continue
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return Nvrtc(library, (major.value, minor.value))
    raise BackendUnavailable(
        f"the CUDA run-time compiler is not here ({'; '.join(problems) or 'no candidate'}); {INSTALL}."
    )


def cuda_sources(sources: Path) -> list[Path]:
    """Return the files that make the CUDA kernels."""
    csrc = sources / "csrc"
    return [csrc / "haar_core.h", *sorted(csrc.glob("*.cuh")), csrc / MAIN_SOURCE]


def supported_architectures(nvrtc: Nvrtc) -> list[int]:
    """Return the compute capabilities (87 for 8.7) this compiler has machine code for."""
    count = ctypes.c_int()
    _check(nvrtc, nvrtc.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "list its architectures")
    architectures = (ctypes.c_int * count.value)()
    _check(nvrtc, nvrtc.library.nvrtcGetSupportedArchs(architectures), "list its architectures")
    return list(architectures)


def compile_cubin(nvrtc: Nvrtc, sources: Path, sm: int) -> bytes:
    """Compile every kernel for compute capability sm; raises BuildError with the compiler's log."""
    headers = cuda_sources(sources)
    main = headers.pop().read_bytes()
    texts = (ctypes.c_char_p * len(headers))(*(path.read_bytes() for path in headers))
    names = (ctypes.c_char_p * len(headers))(*(path.name.encode() for path in headers))
    library, program = nvrtc.library, ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), main, MAIN_SOURCE.encode(), len(headers), texts, names)
    _check(nvrtc, created, "read the sources")
    try:
        options = [f"--gpu-architecture=sm_{sm}", *OPTIONS]
        arguments = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), arguments) != 0:
            log = _read(nvrtc, program, "ProgramLog").decode(errors="replace").strip("\0\n ")
            raise BuildError(f"NVRTC {version_text(nvrtc)} could not compile the kernels for sm_{sm}: {log[-800:]}")
        return _read(nvrtc, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def cached_cubin(sources: Path, sm: int) -> bytes:
    """Return the cubin of these sources for sm from the cache, compiling it at first use (a second or two)."""
    path = cache_folder("kernels") / f"haar_kernels-{source_hash(cuda_sources(sources))}.sm_{sm}.cubin"
    if path.is_file():
        return path.read_bytes()
    cubin = compile_cubin(load_nvrtc(), sources, sm)
    write_bytes(path, cubin)
    return cubin


def version_text(nvrtc: Nvrtc) -> str:
    """Return the compiler's version, such as 13.2."""
    return ".".join(map(str, nvrtc.version))


def _candidates() -> Iterator[str]:
    spec = find_spec("nvidia")
    for root in spec.submodule_search_locations if spec and spec.submodule_search_locations else ():
        yield from sorted((str(p) for p in Path(root).glob("*/lib/libnvrtc.so.*") if "alt" not in p.name), reverse=True)
    found = ctypes.util.find_library("nvrtc")
    if found:
        yield found
    yield from ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2")


def _read(nvrtc: Nvrtc, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)), "return a result")
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc.library, f"nvrtcGet{what}")(program, buffer), "return a result")
    return buffer.raw


def _check(nvrtc: Nvrtc, code: int, task: str) -> None:
    if code != 0:
        describe = nvrtc.library.nvrtcGetErrorString
        describe.restype = ctypes.c_char_p
        raise BuildError(f"NVRTC {version_text(nvrtc)} could not {task}: {describe(code).decode()}.")
