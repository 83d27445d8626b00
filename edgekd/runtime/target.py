"""Whether a bundle is for this machine, asked before an engine library is.

A bundle's folder and manifest go in; nothing comes out, or the sentence why it cannot run here.
"""

from __future__ import annotations

from pathlib import Path

from edgekd.backends import BACKENDS
from edgekd.bundle import Manifest, check_target
from edgekd.errors import BackendUnavailable
from edgekd.runtime.cuda import compute_capability, n_multiprocessors
from edgekd.runtime.tensorrt_library import library_version


def check_machine(folder: Path, manifest: Manifest) -> None:
    """Compare the manifest with the processor, the GPU and the version of TensorRT at hand.

    Raises:
        BundleMismatch: the bundle was built for another machine.
    """
    if manifest.target.compute_capability is None:
        check_target(folder, manifest, None)
        return
    check_target(folder, manifest, compute_capability(), n_multiprocessors(), _library_version(manifest))


def _library_version(manifest: Manifest) -> str | None:
    """Return the version of TensorRT here; None where it is missing, of which opening the engine tells more."""
    try:
        return library_version(BACKENDS[manifest.backend].rtx)
    except BackendUnavailable:
        return None
