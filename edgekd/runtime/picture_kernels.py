"""The picture kernels of `cuda_kernels`, loaded and launched by the CUDA driver without a toolkit and torch.

Machine code for this GPU comes from `edgekd.nvrtc`: made ahead of time, from the cache, or compiled at first use.
Addresses and streams are plain integers, as in `cuda_calls`. The launches run in the tests on the host shim.
"""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache

from edgekd.errors import BackendUnavailable
from edgekd.nvrtc import cubin_for
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.cuda_runtime import CudaRuntime
from edgekd.runtime.picture_job import THREADS, Job, Launch

_ADDRESS = ctypes.c_void_p
_Arguments = list[ctypes.c_void_p | Job]


class PictureKernels:
    """The two kernels of one GPU; see `cuda_kernels/README.md`."""

    def __init__(self, driver: ctypes.CDLL, cubin: bytes) -> None:
        """Load machine code into the context of this thread.

        Raises:
            CudaError: the driver refuses it.
        """
        self._driver = driver
        driver.cuModuleLoadData.argtypes = (ctypes.POINTER(_ADDRESS), ctypes.c_char_p)
        driver.cuModuleGetFunction.argtypes = (ctypes.POINTER(_ADDRESS), _ADDRESS, ctypes.c_char_p)
        driver.cuLaunchKernel.argtypes = (
            _ADDRESS, *(ctypes.c_uint,) * 7, _ADDRESS, ctypes.POINTER(_ADDRESS), ctypes.POINTER(_ADDRESS)
        )  # fmt: skip
        self._module = _ADDRESS()
        self._check(driver.cuModuleLoadData(ctypes.byref(self._module), cubin), "load the picture kernels")
        self._letterbox, self._crops = self._function(b"edgekd_letterbox"), self._function(b"edgekd_crops")

    def letterbox(self, picture: int, out: int, launch: Launch, stream: int) -> None:
        """Queue: the picture at an address becomes float32 planes at another."""
        arguments: _Arguments = [_ADDRESS(picture), _ADDRESS(out), launch.job]
        self._launch(self._letterbox, arguments, launch, stream)

    def crops(self, picture: int, windows: int, out: int, launch: Launch, stream: int) -> None:
        """Queue: windows (n, 4) int32 of the picture become uint8 RGB crops."""
        arguments: _Arguments = [_ADDRESS(picture), _ADDRESS(windows), _ADDRESS(out), launch.job]
        self._launch(self._crops, arguments, launch, stream)

    def _function(self, name: bytes) -> ctypes.c_void_p:
        function = _ADDRESS()
        found = self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, name)
        self._check(found, f"find the kernel {name.decode()}")
        return function

    def _launch(
        self,
        function: ctypes.c_void_p,
        arguments: _Arguments,
        launch: Launch,
        stream: int,
    ) -> None:
        pointers = (_ADDRESS * len(arguments))(*(ctypes.addressof(argument) for argument in arguments))
        shape = (*launch.grid, THREADS, 1, 1, launch.job.staged_bytes)
        self._check(self._driver.cuLaunchKernel(function, *shape, stream, pointers, None), "launch a picture kernel")

    def _check(self, code: int, task: str) -> None:
        if code != 0:
            words = ctypes.c_char_p()
            self._driver.cuGetErrorString(code, ctypes.byref(words))
            raise CudaError(f"the CUDA driver cannot {task}: {(words.value or b'error').decode()} (CUresult {code})")


@lru_cache(maxsize=2)
def open_kernels(cuda: CudaRuntime) -> PictureKernels:
    """Return the kernels for GPU 0; all chains of a process share them.

    Raises:
        BackendUnavailable: the driver is missing, or the compiler and machine code made ahead of time both are.
        BuildError: the compiler does not know this GPU.
        CudaError: the driver refuses the machine code.
    """
    name = os.environ.get("EDGEKD_LIBCUDA", "libcuda.so.1")
    try:
        driver = ctypes.CDLL(name)
    except OSError as error:
        raise BackendUnavailable(f"the CUDA driver cannot be loaded ({error})") from error
    cubin = cubin_for(int(cuda.compute_capability().replace(".", "")), "picture")
    cuda.free(0)  # makes the context that TensorRT works in the current one
    return PictureKernels(driver, cubin)
