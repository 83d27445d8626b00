"""Which CUDA this machine has: `open_cuda()` returns the protocol of `cuda_calls`, on libcudart or on PyCUDA.

EDGEKD_CUDA chooses between them, EDGEKD_CUDART names a libcudart.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from edgekd.errors import BackendUnavailable
from edgekd.runtime.cuda_calls import Cuda, CudaError
from edgekd.runtime.cuda_runtime import CudaRuntime


@cache
def open_cuda() -> Cuda:
    """Load CUDA and check that a GPU answers; EDGEKD_CUDA=pycuda takes PyCUDA instead of libcudart.

    Raises:
        BackendUnavailable: there is no usable libcudart, no driver or no GPU.
    """
    wanted = os.environ.get("EDGEKD_CUDA", "cudart")
    if wanted == "pycuda":
        from edgekd.runtime.cuda_pycuda import PyCuda

        return PyCuda()
    if wanted != "cudart":
        raise BackendUnavailable(f"EDGEKD_CUDA is {wanted!r}, expected cudart or pycuda; unset it")
    reasons = []
    for name in _library_names():
        try:
            runtime = CudaRuntime(ctypes.CDLL(name))
            runtime.count_devices()
        except OSError:
            continue
        except (AttributeError, CudaError) as error:
            reasons.append(f"{Path(name).name}: {error}")
            continue
        return runtime
    if reasons:
        raise BackendUnavailable(
            f"no NVIDIA GPU answers ({reasons[0]}); check with nvidia-smi, or build for a CPU: "
            "edgekd build-engine MODELS --backend openvino"
        )
    raise BackendUnavailable(
        "libcudart cannot be found; install it with: pip install nvidia-cuda-runtime, or name the file in EDGEKD_CUDART"
    )


def compute_capability() -> str | None:
    """Return the compute capability of GPU 0, such as "8.7", or None when there is no usable GPU."""
    try:
        return open_cuda().compute_capability()
    except BackendUnavailable:
        return None


def n_multiprocessors() -> int | None:
    """Return how many multiprocessors GPU 0 has, or None when there is no usable GPU."""
    try:
        return open_cuda().n_multiprocessors()
    except BackendUnavailable:
        return None


def _library_names() -> Iterator[str]:
    """Yield what to load: EDGEKD_CUDART alone when it is set, else the system's libraries, then NVIDIA's wheels."""
    if named := os.environ.get("EDGEKD_CUDART"):
        yield named
        return
    versions = (".13", ".12", ".11.0", "")
    yield from (f"libcudart.so{version}" for version in versions)
    yield from (f"/usr/local/cuda/lib64/libcudart.so{version}" for version in versions)
    wheel = find_spec("nvidia")
    for root in wheel.submodule_search_locations or () if wheel else ():
        yield from map(str, sorted(Path(root).glob("*/lib/libcudart.so.*"), reverse=True))
