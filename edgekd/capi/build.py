"""Build and install libedgekd from the sources that ship with the package, for those who have only pip.

The sources and CMake go in; `include/`, `lib/` (library, backend modules, CMake and pkg-config files) come out.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import BackendUnavailable, BuildError
from edgekd.files import cache_folder, scratch_folder

SOURCES = Path(__file__).parent
NEEDS = "cmake, a C++17 compiler and nlohmann-json (on Debian: apt install cmake g++ nlohmann-json3-dev)"


def default_prefix() -> Path:
    """Return where `edgekd capi build` installs to without -o: `capi` in the cache."""
    return cache_folder("capi")


def build_library(prefix: Path) -> Path:
    """Configure, compile and install.

    Args:
        prefix: folder to install to; nothing is written there unless the whole build succeeds.

    Returns:
        The installed libedgekd.so.

    Raises:
        BackendUnavailable: CMake, a compiler or the JSON library is not here.
        BuildError: the sources do not compile, or the folder cannot be written.
    """
    if shutil.which("cmake") is None:
        raise BackendUnavailable(f"cmake is not on this machine; install {NEEDS}")
    with scratch_folder("capi") as folder:
        options = [f"-D{name}={value}" for name, value in cmake_options().items()]
        if _fails(["cmake", "-S", str(SOURCES), "-B", str(folder), *options], folder / "log"):
            raise BackendUnavailable(f"libedgekd cannot be configured ({_last_words(folder)}); install {NEEDS}")
        if _fails(["cmake", "--build", str(folder), "--parallel", str(os.cpu_count() or 1)], folder / "log"):
            raise BuildError(f"libedgekd does not compile ({_last_words(folder)}); install {NEEDS}")
        if _fails(["cmake", "--install", str(folder), "--prefix", str(prefix)], folder / "log"):
            raise BuildError(f"{prefix} cannot be written ({_last_words(folder)}); give another folder with -o")
    return prefix / "lib" / "libedgekd.so"


def compiler_flags(prefix: Path) -> list[str]:
    """Return the flags to compile against an installed libedgekd."""
    _check_installed(prefix)
    return [f"-I{prefix / 'include'}"]


def linker_flags(prefix: Path) -> list[str]:
    """Return the flags to link with an installed libedgekd; the run path finds it there without LD_LIBRARY_PATH."""
    _check_installed(prefix)
    return [f"-L{prefix / 'lib'}", f"-Wl,-rpath,{prefix / 'lib'}", "-ledgekd"]


def _check_installed(prefix: Path) -> None:
    if not (prefix / "lib" / "libedgekd.so").is_file():
        raise BackendUnavailable(f"{prefix} holds no libedgekd; build it with: edgekd capi build -o {prefix}")


def cmake_options() -> dict[str, str]:
    """Return CMake's variables for this Python: libraries go to `lib`, OpenVINO comes from its wheel."""
    options = {"CMAKE_INSTALL_LIBDIR": "lib", "EDGEKD_EXAMPLES": "OFF"}
    openvino = importlib.util.find_spec("openvino")
    if openvino is not None and openvino.origin is not None:
        options["OpenVINO_DIR"] = str(Path(openvino.origin).parent / "cmake")
    return options


def _fails(command: Sequence[str], log: Path) -> bool:
    with log.open("w") as file:
        return subprocess.run(command, stdout=file, stderr=subprocess.STDOUT).returncode != 0


def _last_words(folder: Path) -> str:
    """Return the first line that names an error, or the last line of all."""
    lines = [line.strip() for line in (folder / "log").read_text(errors="replace").splitlines() if line.strip()]
    named = [line for line in lines if "error" in line.lower() and not line.endswith(("(message):", "CMakeLists.txt"))]
    return (named or lines or ["no reason given"])[0 if named else -1][:300].rstrip(".")
