"""CUDA source in, a cubin out, without a CUDA toolkit and without a GPU: NVIDIA's run-time compiler through ctypes.

The library comes with PyTorch's CUDA build (package nvidia-cuda-nvrtc) or with a toolkit. The kernels include no CUDA
header, so nothing else is needed. At the end: cubins of several architectures in one folder, made ahead of time.
"""

import ctypes
import ctypes.util
import hashlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from edgekd.errors import BackendUnavailable, BuildError, InputError
from edgekd.files import cache_folder, write_bytes
from edgekd.ops._cpu_build import kernel_sources_dir, source_hash

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


MANIFEST = "manifest.json"


def compile_ahead(sms: list[int], output_dir: Path, older_nvrtc: list[Path] | None = None) -> Path:
    """Compile every kernel for every compute capability (87 for 8.7) and return the manifest's path.

    What the newest compiler no longer targets (sm_72 since CUDA 13) is made by the first of older_nvrtc that does; the
    manifest says which one made each cubin. Raises InputError for what none targets; then nothing is written.
    """
    sources = kernel_sources_dir()
    compilers = [load_nvrtc(), *(load_nvrtc(path) for path in older_nvrtc or [])]
    plan = {sm: _compiler_for(sm, compilers) for sm in sms}
    cubins = {sm: compile_cubin(nvrtc, sources, sm) for sm, nvrtc in plan.items()}
    entries: list[dict[str, Any]] = []
    for sm, cubin in cubins.items():
        name = f"haar_kernels.sm_{sm}.cubin"
        _write(output_dir / name, cubin)
        entries.append(
            {
                "sm": sm,
                "file": name,
                "bytes": len(cubin),
                "sha256": hashlib.sha256(cubin).hexdigest(),
                "nvrtc": version_text(plan[sm]),
            }
        )
    manifest = {"format": 1, "source_hash": source_hash(cuda_sources(sources)), "cubins": entries}
    _write(output_dir / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    return output_dir / MANIFEST


def parse_sms(text: str) -> list[int]:
    """Read a list such as "72,87,89"."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise InputError(f"--sm is {text!r}, expected compute capabilities without a dot, such as 72,87,89.")
    return list(dict.fromkeys(int(part) for part in parts))


def _compiler_for(sm: int, compilers: list[Nvrtc]) -> Nvrtc:
    for nvrtc in compilers:
        if sm in supported_architectures(nvrtc):
            return nvrtc
    known = "; ".join(f"NVRTC {version_text(c)}: {', '.join(map(str, supported_architectures(c)))}" for c in compilers)
    raise InputError(f"no compiler here targets sm_{sm} ({known}); give an older or newer one with --nvrtc FILE.")


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except OSError as error:
        raise BuildError(f"{path} cannot be written ({error.strerror}); choose another folder with -o.") from error
