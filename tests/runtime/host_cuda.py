"""A functional TensorRT for machines without one: host_cudart.c below, ONNX Runtime behind, TensorRT's rules enforced.

`use_host_cuda` makes `open_cuda` load the host implementation of the CUDA calls, `use_host_driver` adds the picture
kernels; `use_fake_tensorrt` makes
`import tensorrt` give a module whose engines compute through it. The rules are those of the library: a context owns
its profile unless the plan shares it, the first run of a shape is not recorded, a context without memory must be given
some, and every address is that of live device memory.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import fake_plan
import numpy as np
import onnxruntime
import pytest

from edgekd.nvrtc import kernel_sources_dir
from edgekd.runtime import cuda, picture_kernels
from edgekd.runtime.tensorrt_library import tensorrt_library

CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
DTYPES = {
    "FLOAT": np.float32, "HALF": np.float16, "INT8": np.int8, "UINT8": np.uint8, "INT32": np.int32, "INT64": np.int64,
    "BOOL": np.bool_,
}  # fmt: skip


@functools.cache
def compiled() -> str:
    """Compile the library and return its path; skip where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the host implementation of CUDA")
    target = Path(tempfile.mkdtemp()) / "libcudart-host.so"
    source = Path(__file__).with_name("host_cudart.c")
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *flags, "-o", str(target), str(source)], check=True)
    return str(target)


@functools.cache
def compiled_driver() -> str:
    """Compile the driver calls with the picture kernels inside, and return the library's path."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler to build the host implementation of the CUDA driver")
    target = Path(compiled()).with_name("libcuda-host.so")
    csrc = kernel_sources_dir() / "csrc"
    flags = ["-O1", "-std=c++17", "-w", "-shared", "-fPIC", f"-I{csrc}", f"-I{csrc / 'host'}"]
    source = Path(__file__).with_name("host_driver.cpp")
    subprocess.run([compiler, *flags, "-o", str(target), str(source), compiled()], check=True)
    return str(target)


def use_host_driver(monkeypatch) -> ctypes.CDLL:
    """Let the picture kernels run on the host too; after `use_host_cuda`, which leaves a machine without them."""
    monkeypatch.setenv("EDGEKD_LIBCUDA", compiled_driver())
    monkeypatch.setattr(picture_kernels, "cubin_for", lambda sm, family: b"cubin" if sm == 87 else b"another GPU's")
    return ctypes.CDLL(compiled_driver())


def use_host_cuda(monkeypatch) -> ctypes.CDLL:
    """Make `open_cuda` load the host implementation, reset to one whole device and working captures."""
    monkeypatch.setenv("EDGEKD_CUDART", compiled())
    monkeypatch.setenv("EDGEKD_LIBCUDA", "libcuda-that-is-nowhere.so")
    cuda.open_cuda.cache_clear()
    library = ctypes.CDLL(os.environ["EDGEKD_CUDART"])
    library.host_enqueue.argtypes = (ctypes.c_void_p, CALLBACK, ctypes.c_void_p)
    library.host_is_capturing.argtypes = (ctypes.c_void_p,)
    library.host_is_device.argtypes = library.host_is_pinned.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    for name in ("host_device_bytes", "host_device_peak", "host_copied_bytes"):
        getattr(library, name).restype = ctypes.c_longlong
    library.host_reset()
    return library


class Context:
    """An execution context; `static` ones own their scratch memory, the others must be given some."""

    def __init__(self, engine, static, has_profile):
        self.engine, self.addresses, self.has_profile = engine, {}, has_profile
        self.shapes = {tensor.name: tensor.shape for tensor in engine.plan.tensors if tensor.profile}
        self.callbacks, self.runs_of_shapes, self.scratch = [], 0, (0, 0)
        self.owned = engine.cudart_allocate(engine.scratch_bytes) if static else None
        if static:
            self.scratch = (self.owned, engine.scratch_bytes)
        engine.contexts.append(self)

    def __del__(self):
        if self.owned:
            self.engine.cudart.cudaFree(ctypes.c_void_p(self.owned))

    def set_input_shape(self, name, shape):
        smallest, _, largest = self.engine.tensor(name).profile
        fits = self.has_profile and len(shape) == len(smallest)
        fits = fits and all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))
        if fits:
            self.shapes[name], self.runs_of_shapes = tuple(shape), 0
        return fits or self.engine.complain(f"setInputShape: {name} has no profile for {tuple(shape)}")

    def get_tensor_shape(self, name):
        if name in self.shapes:
            return self.shapes[name]
        open_axes = {
            shape[axis]
            for tensor in self.engine.plan.tensors if tensor.profile
            for shape in [self.shapes[tensor.name]]
            for axis, size in enumerate(tensor.shape) if size == -1
        }  # fmt: skip
        number = open_axes.pop() if len(open_axes) == 1 else -1
        return tuple(number if size == -1 else size for size in self.engine.tensor(name).shape)

    def set_tensor_address(self, name, address):
        n_bytes = int(np.prod(self.get_tensor_shape(name))) * np.dtype(DTYPES[self.engine.tensor(name).dtype]).itemsize
        if not self.engine.cudart.host_is_device(address, n_bytes):
            return self.engine.complain(f"setTensorAddress: {name} is not device memory of {n_bytes} bytes")
        self.addresses[name] = address
        return True

    def _give(self, address, n_bytes):
        if n_bytes < self.engine.scratch_bytes:
            raise ValueError("setDeviceMemory: too little")
        self.scratch = (address, n_bytes)

    def execute_async_v3(self, stream):
        engine, cudart = self.engine, self.engine.cudart
        if engine.n_failures:
            engine.n_failures -= 1
            return engine.complain("the kernel failed\nbadly.")
        if set(self.addresses) != {tensor.name for tensor in engine.plan.tensors}:
            return engine.complain("enqueueV3: an address is missing")
        if not cudart.host_is_device(self.scratch[0], engine.scratch_bytes):
            return engine.complain("enqueueV3: the context has no device memory")
        if cudart.host_is_capturing(stream) and not self.runs_of_shapes:
            return engine.complain("enqueueV3: the first run of a shape allocates and cannot be captured")
        self.runs_of_shapes += 1
        shapes = {name: self.get_tensor_shape(name) for name in self.addresses}
        self.callbacks.append(CALLBACK(functools.partial(self._compute, dict(self.addresses), shapes, self.scratch)))
        return cudart.host_enqueue(stream, self.callbacks[-1], None) == 0

    def _compute(self, addresses, shapes, scratch, _):
        """Run when the stream is waited for; memory that was freed since it was queued breaks the device."""
        engine, cudart = self.engine, self.engine.cudart
        arrays = {}
        for tensor in engine.plan.tensors:
            array = view(addresses[tensor.name], DTYPES[tensor.dtype], shapes[tensor.name])
            if not cudart.host_is_device(addresses[tensor.name], array.nbytes):
                return cudart.host_break()
            arrays[tensor.name] = array
        if not cudart.host_is_device(scratch[0], engine.scratch_bytes):
            return cudart.host_break()
        view(scratch[0], np.uint8, (min(engine.scratch_bytes, 64),))[:] = 0x5A
        outputs = [tensor.name for tensor in engine.plan.tensors if not tensor.profile]
        feeds = {name: array for name, array in arrays.items() if name not in outputs}
        for name, result in zip(outputs, engine.session.run(outputs, feeds), strict=True):
            arrays[name][...] = result
        return None


class SizedContext(Context):
    """A context of 10.3 and newer."""

    def set_device_memory(self, address, n_bytes):
        self._give(address, n_bytes)


class OldContext(Context):
    """A context of 8.6 to 10.2."""

    def __setattr__(self, name, value):
        if name == "device_memory":
            self._give(value, self.engine.scratch_bytes)
        super().__setattr__(name, value)


class RtxContext(SizedContext):
    """A context of TensorRT-RTX, which says itself whether it can be recorded."""

    def is_stream_capturable(self, stream):
        return self.runs_of_shapes > 0


class CudaEngine:
    """The engine of a fake plan."""

    Context = SizedContext

    def __init__(self, cudart, logger, plan):
        self.cudart, self.logger, self.plan, self.n_failures = cudart, logger, plan, 0
        self.contexts, self.profile_owner = [], None
        self.num_io_tensors = len(plan.tensors)

    @functools.cached_property
    def session(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.plan.model, options, providers=["CPUExecutionProvider"])

    def complain(self, message):
        self.logger.log(1, message)
        return False

    @property
    def scratch_bytes(self):
        return self.plan.scratch_bytes

    def cudart_allocate(self, n_bytes):
        address = ctypes.c_void_p()
        assert self.cudart.cudaMalloc(ctypes.byref(address), ctypes.c_size_t(n_bytes)) == 0
        return address.value

    def _context(self, static):
        taken = self.profile_owner is not None and not self.plan.shares_profiles
        context = self.Context(self, static, has_profile=not taken)
        self.profile_owner = self.profile_owner or context
        return context

    def tensor(self, name):
        return next(tensor for tensor in self.plan.tensors if tensor.name == name)

    def get_tensor_name(self, index):
        return self.plan.tensors[index].name

    def get_tensor_mode(self, name):
        return SimpleNamespace(name="INPUT" if self.tensor(name).profile else "OUTPUT")

    def get_tensor_dtype(self, name):
        return SimpleNamespace(name=self.tensor(name).dtype)

    def get_tensor_shape(self, name):
        return self.tensor(name).shape

    def get_tensor_profile_shape(self, name, index):
        return list(self.tensor(name).profile)


class SizedEngine(CudaEngine):
    """An engine of 10.3 and newer."""

    @property
    def device_memory_size_v2(self):
        return self.scratch_bytes

    def create_execution_context(self, strategy="static"):
        return self._context(strategy == "static")


class OldEngine(CudaEngine):
    """An engine of 8.6 to 10.2."""

    Context = OldContext

    @property
    def device_memory_size(self):
        return self.scratch_bytes

    def create_execution_context(self):
        return self._context(static=True)

    def create_execution_context_without_device_memory(self):
        return self._context(static=False)


class RtxEngine(SizedEngine):
    """An engine of TensorRT-RTX: how a context is made is said in a configuration."""

    Context = RtxContext

    def create_runtime_config(self):
        config = SimpleNamespace(strategy="static")
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        return config

    def create_execution_context(self, config="static"):
        return super().create_execution_context(getattr(config, "strategy", config))


ENGINES = {"8.6.1": OldEngine, "10.3.0": SizedEngine, "11.0.0": SizedEngine, "rtx": RtxEngine}


class FakeTensorRt:
    """The part of the module `tensorrt` that running needs, in the words of one version."""

    ILogger = type(
        "ILogger", (), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)}
    )
    Builder = object
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="user")
    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager")

    def __init__(self, cudart, version="10.3.0"):
        self.cudart, self.engines, self.__version__ = cudart, [], version
        self.Engine = ENGINES[version]
        self.IExecutionContext = self.Engine.Context
        if version == "rtx":
            self.ComputeCapability = object

    def Runtime(self, logger):
        def deserialize_cuda_engine(content):
            plan = fake_plan.read_plan(content)
            if plan is None:
                logger.log(1, "the magic tag does not match\n")
                return None
            self.engines.append(self.Engine(self.cudart, logger, plan))
            return self.engines[-1]

        return SimpleNamespace(deserialize_cuda_engine=deserialize_cuda_engine)


def use_fake_tensorrt(monkeypatch, cudart, version="10.3.0") -> FakeTensorRt:
    """Make `import tensorrt` (or `tensorrt_rtx`) give a module whose engines compute on the host."""
    fake = FakeTensorRt(cudart, version)
    name = "tensorrt_rtx" if version == "rtx" else "tensorrt"
    monkeypatch.setitem(__import__("sys").modules, name, fake)
    tensorrt_library.cache_clear()
    return fake


def view(address, dtype, shape):
    """An array over memory at an address."""
    n_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * n_bytes).from_address(address), dtype).reshape(shape)
