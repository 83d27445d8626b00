"""The host implementation of the CUDA calls (host_cudart.c), compiled once, and an engine that computes through it."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.runtime import cuda
from edgekd.runtime.tensorrt_library import tensorrt_library

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def compiled() -> str:
    """Compile the library and return its path; skip where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the host implementation of CUDA")
    target = Path(tempfile.mkdtemp()) / "libcudart-host.so"
    source = Path(__file__).with_name("host_cudart.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return str(target)


def use_host_cuda(monkeypatch) -> ctypes.CDLL:
    """Make `open_cuda` load the host implementation, reset to one device and working captures."""
    monkeypatch.setenv("EDGEKD_CUDART", compiled())
    cuda.open_cuda.cache_clear()
    library = ctypes.CDLL(os.environ["EDGEKD_CUDART"])
    library.host_enqueue.argtypes = (ctypes.c_void_p, CALLBACK, ctypes.c_void_p)
    library.host_set_devices(1)
    library.host_fail_captures(0)
    return library


class Context:
    """An execution context of y = 2 x + bias and rows = row index; it computes on the stream that it is given."""

    def __init__(self, engine):
        self.engine, self.addresses, self.shapes = engine, {}, {"bias": (1,)}
        self.callbacks = []
        engine.contexts.append(self)

    def set_input_shape(self, name, shape):
        smallest, _, largest = self.engine.get_tensor_profile_shape(name, 0) if name == "x" else [(1,)] * 3
        fits = len(shape) == len(smallest)
        fits = fits and all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))
        if fits:
            self.shapes[name] = tuple(shape)
        return fits

    def get_tensor_shape(self, name):
        rows = self.shapes["x"]
        return {"x": rows, "bias": (1,), "y": rows, "rows": rows[:1]}[name]

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream):
        if self.engine.n_failures:
            self.engine.n_failures -= 1
            self.engine.logger.log(1, "the kernel failed\nbadly.")
            return False
        shape, addresses = self.shapes["x"], dict(self.addresses)

        def compute(_):
            x, y = (view(addresses[name], np.float32, shape) for name in ("x", "y"))
            y[:] = 2 * x + view(addresses["bias"], np.float16, (1,))
            view(addresses["rows"], np.int32, shape[:1])[:] = np.arange(shape[0])

        self.callbacks.append(CALLBACK(compute))
        return self.engine.cudart.host_enqueue(stream, self.callbacks[-1], None) == 0


class CudaEngine:
    """The TensorRT engine of `Context`: x (n, 4) with 1 to `most_rows` rows."""

    names = ("x", "bias", "y", "rows")
    num_io_tensors = 4
    dtypes = {"x": "FLOAT", "bias": "HALF", "y": "FLOAT", "rows": "INT32"}

    def __init__(self, cudart, logger, most_rows=16):
        self.cudart, self.logger, self.most_rows, self.n_failures = cudart, logger, most_rows, 0
        self.contexts = []

    def create_execution_context(self):
        return Context(self)

    def get_tensor_name(self, index):
        return self.names[index]

    def get_tensor_mode(self, name):
        return SimpleNamespace(name="INPUT" if name in ("x", "bias") else "OUTPUT")

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.dtypes[name])

    def get_tensor_shape(self, name):
        return {"x": (-1, 4), "bias": (1,), "y": (-1, 4), "rows": (-1,)}[name]

    def get_tensor_profile_shape(self, name, index):
        return [(1, 4), (4, 4), (self.most_rows, 4)]


class FakeTensorRt:
    """The part of the module `tensorrt` that running needs; a plan is the text "plan" and a number of rows."""

    ILogger = type(
        "ILogger", (), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)}
    )
    Builder = object

    def __init__(self, cudart):
        self.cudart, self.engines = cudart, []

    def Runtime(self, logger):
        def deserialize_cuda_engine(plan):
            if not plan.startswith(b"plan"):
                logger.log(1, "the magic tag does not match\n")
                return None
            self.engines.append(CudaEngine(self.cudart, logger, int(plan[4:])))
            return self.engines[-1]

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


def use_fake_tensorrt(monkeypatch, cudart) -> FakeTensorRt:
    """Make `import tensorrt` give a module whose engines compute through the host implementation of CUDA."""
    fake = FakeTensorRt(cudart)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake)
    tensorrt_library.cache_clear()
    return fake


def view(address, dtype, shape):
    """An array over memory at an address."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * n_bytes).from_address(address), dtype).reshape(shape)
