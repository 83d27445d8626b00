"""CUDA source in, a cubin out, without a CUDA toolkit and without a GPU: NVIDIA's run-time compiler through ctypes.

The library comes with the package nvidia-cuda-nvrtc (PyTorch's CUDA build brings it), with JetPack or with a toolkit.
The kernels include no CUDA header, so nothing else is needed. There are two families, `haar` and `picture`. At the end:
cubins of several architectures in one folder, made ahead of time for machines without a compiler.
"""

import ctypes
import ctypes.util
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from edgekd.errors import BackendUnavailable, BuildError, InputError
from edgekd.files import cache_folder, write_bytes

PACKAGE_DIR = Path(__file__).resolve().parent
Family = Literal["haar", "picture"]
MANIFEST = "manifest.json"
OPTIONS = ("--std=c++17", "-default-device", "--fmad=true")
INSTALL = "install it with: pip install nvidia-cuda-nvrtc"


class Nvrtc(NamedTuple):
    """A loaded compiler and its version."""

    library: ctypes.CDLL
    version: tuple[int, int]


def kernel_sources_dir(package_dir: Path = PACKAGE_DIR) -> Path:
    """Return the folder of the C++ and CUDA sources, in an installed package or in a source checkout.

    An installation has it inside the package (`edgekd/_cuda_kernels`), a checkout beside it (`cuda_kernels`).
    Raises BackendUnavailable when neither is there.
    """
    installed, checkout = package_dir / "_cuda_kernels", package_dir.parent / "cuda_kernels"
    for folder in (installed, checkout):
        if (folder / "csrc" / "haar_core.h").is_file():
            return folder
    raise BackendUnavailable(f"the kernel sources are neither in {installed} nor in {checkout}; reinstall edgekd.")


def source_hash(paths: Iterable[Path]) -> str:
    """Return 12 hex digits of the SHA-256 over the names and bytes of source files, in order of name."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


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
        # NVIDIA's wheel has no search path inside: what the compiler opens later must be in the process already.
        for part in Path(name).parent.glob("libnvrtc-builtins.so.*") if "/" in name else ():
            ctypes.CDLL(str(part), mode=ctypes.RTLD_GLOBAL)
        major, minor = ctypes.c_int(), ctypes.c_int()
        library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return Nvrtc(library, (major.value, minor.value))
    raise BackendUnavailable(
        f"the CUDA run-time compiler is not here ({'; '.join(problems) or 'no candidate'}); {INSTALL}."
    )


def cuda_sources(sources: Path, family: Family) -> list[Path]:
    """Return the files that make the kernels of a family, the one to compile last."""
    csrc = sources / "csrc"
    headers = [path for path in csrc.glob(f"{family}_*") if path.suffix in (".h", ".cuh")]
    return [*sorted(headers), csrc / f"{family}_kernels.cu"]


def supported_architectures(nvrtc: Nvrtc) -> list[int]:
    """Return the compute capabilities (87 for 8.7) this compiler has machine code for."""
    count = ctypes.c_int()
    _check(nvrtc, nvrtc.library.nvrtcGetNumSupportedArchs(ctypes.byref(count)), "list its architectures")
    architectures = (ctypes.c_int * count.value)()
    _check(nvrtc, nvrtc.library.nvrtcGetSupportedArchs(architectures), "list its architectures")
    return list(architectures)


def compile_cubin(nvrtc: Nvrtc, sources: Path, sm: int, family: Family) -> bytes:
    """Compile the kernels of a family for compute capability sm; raises BuildError with the compiler's log."""
    *headers, main = cuda_sources(sources, family)
    texts = (ctypes.c_char_p * len(headers))(*(path.read_bytes() for path in headers))
    names = (ctypes.c_char_p * len(headers))(*(path.name.encode() for path in headers))
    library, program = nvrtc.library, ctypes.c_void_p()
    created = library.nvrtcCreateProgram(
        ctypes.byref(program), main.read_bytes(), main.name.encode(), len(headers), texts, names
    )
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


def cubin_for(sm: int, family: Family) -> bytes:
    """Return the machine code of a family for compute capability sm (87 for 8.7).

    It is read from the folder that EDGEKD_CUBINS names, where that is set; otherwise from the cache of this user, where
    it is compiled at first use, which takes a second or two.

    Raises:
        BackendUnavailable: the cubin is missing from the folder, or no compiler is installed.
        BuildError: the compiler does not know the compute capability.
    """
    folder = os.environ.get("EDGEKD_CUBINS")
    if folder:
        return _made_ahead(Path(folder), sm, family)
    files = cuda_sources(kernel_sources_dir(), family)
    path = cache_folder("kernels") / f"{family}_kernels-{source_hash(files)}.sm_{sm}.cubin"
    if path.is_file():
        return path.read_bytes()
    cubin = compile_cubin(load_nvrtc(), kernel_sources_dir(), sm, family)
    write_bytes(path, cubin)
    return cubin


def _made_ahead(folder: Path, sm: int, family: Family) -> bytes:
    """Read a cubin of `compile_ahead` after checking that it is whole and made of the present sources."""
    cure = f"make it with: edgekd kernels compile --sm {sm} -o {folder}"
    wanted = source_hash(cuda_sources(kernel_sources_dir(), family))
    try:
        entries = json.loads((folder / MANIFEST).read_text())["cubins"]
        entry = next((e for e in entries if (e["sm"], e["family"], e["source_hash"]) == (sm, family, wanted)), None)
        cubin = (folder / entry["file"]).read_bytes() if entry else b""
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendUnavailable(f"EDGEKD_CUBINS names {folder}, which cannot be read ({error}); {cure}") from error
    if not entry or hashlib.sha256(cubin).hexdigest() != entry["sha256"]:
        raise BackendUnavailable(f"{folder} holds no {family} kernels of this edgekd for sm_{sm}; {cure}")
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


def compile_ahead(sms: list[int], output_dir: Path, older_nvrtc: list[Path] | None = None) -> Path:
    """Compile both families for every compute capability (87 for 8.7) and return the manifest's path.

    What the newest compiler no longer targets (sm_72 since CUDA 13) is made by the first of older_nvrtc that does; the
    manifest says which one made each cubin. Raises InputError for what none targets; then nothing is written.
    """
    sources = kernel_sources_dir()
    compilers = [load_nvrtc(), *(load_nvrtc(path) for path in older_nvrtc or [])]
    plan = {sm: _compiler_for(sm, compilers) for sm in sms}
    families: tuple[Family, ...] = get_args(Family)
    cubins = {(f, sm): compile_cubin(nvrtc, sources, sm, f) for sm, nvrtc in plan.items() for f in families}
    entries: list[dict[str, Any]] = []
    for (family, sm), cubin in cubins.items():
        name = f"{family}_kernels.sm_{sm}.cubin"
        _write(output_dir / name, cubin)
        entries.append(
            {
                "sm": sm,
                "family": family,
                "file": name,
                "bytes": len(cubin),
                "sha256": hashlib.sha256(cubin).hexdigest(),
                "source_hash": source_hash(cuda_sources(sources, family)),
                "nvrtc": version_text(plan[sm]),
            }
        )
    _write(output_dir / MANIFEST, (json.dumps({"format": 2, "cubins": entries}, indent=2) + "\n").encode())
    return output_dir / MANIFEST


def parse_sms(text: str) -> list[int]:
    """Read a list such as "72,87,89"."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise InputError(f"sm is {text!r}, expected compute capabilities without a dot, such as 72,87,89")
    return list(dict.fromkeys(int(part) for part in parts))


def _compiler_for(sm: int, compilers: list[Nvrtc]) -> Nvrtc:
    for nvrtc in compilers:
        if sm in supported_architectures(nvrtc):
            return nvrtc
    known = "; ".join(f"NVRTC {version_text(c)}: {', '.join(map(str, supported_architectures(c)))}" for c in compilers)
    raise InputError(f"no compiler here targets sm_{sm} ({known}); give an older or newer one as `nvrtc`")


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except OSError as error:
        raise BuildError(f"{path} cannot be written ({error.strerror}); choose another `output`") from error
