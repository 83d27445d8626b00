"""Kernels made ahead of time, on a machine with no GPU: compute capabilities in, cubins and a manifest out."""

import hashlib
import json
from pathlib import Path
from typing import Any

from edgekd.errors import BuildError, InputError
from edgekd.files import write_bytes
from edgekd.ops._nvrtc import (
    Nvrtc,
    compile_cubin,
    cuda_sources,
    load_nvrtc,
    supported_architectures,
    version_text,
)
from edgekd.ops.sources import kernel_sources_dir, source_hash

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
