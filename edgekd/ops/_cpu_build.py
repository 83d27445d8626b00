"""Where the kernel sources lie, and the CPU kernels: one C++ file in, one shared library out, without a Python ABI.

`setup.py` calls `compile_cpu_library` for a wheel; `edgekd kernels compile --cpu` calls it on the user's machine.
Nothing here runs at import or at first use.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from edgekd.errors import BackendUnavailable, BuildError
from edgekd.files import cache_folder, scratch_folder, write_bytes
from edgekd.nvrtc import PACKAGE_DIR, kernel_sources_dir, source_hash

# No contraction to fused multiply-add: every instruction set then returns the same gradient.
FLAGS = ("-O3", "-std=c++17", "-fPIC", "-fopenmp", "-ffp-contract=off", "-fvisibility=hidden", "-Wall")
AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512")
X86_ROWS = {"baseline": (), "avx2": ("-mavx2", "-mfma"), "avx512": AVX512}


def library_name(sources: Path) -> str:
    """Return the file name of the library made from these sources; other sources give another name."""
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    csrc = sources / "csrc"
    return f"libedgekd_haar-{source_hash([csrc / 'haar_core.h', *(csrc / 'cpu').iterdir()])}{suffix}"


@lru_cache(maxsize=1)
def find_cpu_library() -> Path | None:
    """Return the library made from the present sources: the package's own, else the user's, else None."""
    name = library_name(kernel_sources_dir())
    candidates = (PACKAGE_DIR / "_native" / name, cache_folder("kernels") / name)
    return next((path for path in candidates if path.is_file()), None)


def find_compiler() -> str | None:
    """Return the C++ compiler: the variable CXX (it may carry arguments), else the first of c++, g++, clang++."""
    if os.environ.get("CXX"):
        return os.environ["CXX"]
    return next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)


def compile_cpu_library(output_dir: Path, sources: Path | None = None, wheel_machine: str | None = None) -> Path:
    """Compile csrc/cpu into output_dir and return the library's path.

    `wheel_machine`, such as aarch64, is the processor that a wheel for other machines is for: CXX is then a compiler
    for it.

    Raises BackendUnavailable without a compiler and BuildError with the compiler's last words when it fails.
    """
    sources = sources or kernel_sources_dir()
    compiler = find_compiler()
    if compiler is None:
        raise BackendUnavailable("no C++ compiler is on this machine; install g++ or point CXX to one.")
    library = output_dir / library_name(sources)
    with scratch_folder("kernels") as temporary:
        for arguments in compile_steps(sources / "csrc" / "cpu", temporary, library.name, wheel_machine):
            _run([*shlex.split(compiler), *FLAGS, *arguments])
        write_bytes(library, (temporary / library.name).read_bytes())
    find_cpu_library.cache_clear()
    return library


def compile_steps(source_dir: Path, work_dir: Path, library: str, machine: str | None = None) -> list[list[str]]:
    """Return the compiler's arguments: the row loops once per instruction set, then everything into one library."""
    rows = X86_ROWS if (machine or platform.machine()).lower() in ("x86_64", "amd64") else {"baseline": ()}
    objects = {isa: str(work_dir / f"rows_{isa}.o") for isa in rows}
    steps = [
        ["-c", *flags, f"-DEDGEKD_ISA={isa}", str(source_dir / "haar_rows.cpp"), "-o", objects[isa]]
        for isa, flags in rows.items()
    ]
    link = ["-shared", str(source_dir / "haar_cpu.cpp"), *objects.values(), "-o", str(work_dir / library)]
    return [*steps, link]


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise BackendUnavailable(f"the C++ compiler {command[0]!r} is not here; install g++ or set CXX.") from error
    if done.returncode != 0:
        raise BuildError(f"{command[0]} could not compile the CPU kernels: {done.stderr.strip()[-800:]}")
