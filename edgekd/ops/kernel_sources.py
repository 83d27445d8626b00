"""Where the kernel sources live, and their hash.

Standard library only, so that `setup.py` can load it before anything is installed.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import BackendUnavailable

PACKAGE_DIR = Path(__file__).resolve().parent.parent


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
