"""A TensorRT plan that was loaded, and what it says of its inputs and outputs.

A file goes in; names, dtypes, profiles and largest shapes come out. Clones of an engine share one `Plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekd.errors import BackendUnavailable, BundleError
from edgekd.runtime.cuda import open_cuda
from edgekd.runtime.cuda_calls import Cuda, CudaError
from edgekd.runtime.engines.tensorrt_memory import ContextMemory, memory_of
from edgekd.runtime.tensorrt_library import TensorRtLibrary, tensorrt_library

if TYPE_CHECKING:
    from tensorrt import DataType, ICudaEngine, IExecutionContext, Runtime, TensorIOMode

Shape = tuple[int, ...]

# By the name of the enum's member: `trt.nptype` of old versions fails with newer NumPy, and not all of them have INT64.
_DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT8": np.uint8,
    "BOOL": np.bool_,
}


@dataclass(frozen=True)
class Plan:
    """The deserialized engine and all that must outlive it."""

    library: TensorRtLibrary
    cuda: Cuda
    runtime: Runtime | None
    engine: ICudaEngine

    @property
    def memory(self) -> ContextMemory:
        """How contexts of this TensorRT get their memory."""
        return memory_of(self.library.api)

    def create_context(self) -> IExecutionContext:
        """Return a context without memory.

        Raises:
            CudaError: TensorRT cannot make one.
        """
        self.library.forget_errors()
        context = self.memory.create(self.library.api, self.engine)
        if context is None:
            raise CudaError(f"TensorRT cannot make an execution context: {self.library.last_error()}")
        return context


def open_plan(path: Path, rtx: bool, contents: Sequence[bytes] = ()) -> Plan:
    """Load a plan; `contents` is what the file holds, where it was read and checked before.

    Raises:
        BackendUnavailable: the library or a GPU is not on this machine.
        BundleError: the plan is missing, damaged, or for another GPU or version.
    """
    library = tensorrt_library(rtx)
    cuda = open_cuda()
    trt = library.api
    cure = f"build it here with: edgekd build-engine --backend {'tensorrt-rtx' if rtx else 'tensorrt'}"
    content = contents[0] if contents else path.read_bytes() if path.is_file() else b""
    if not content:
        raise BundleError(f"{path} is missing or empty, expected a TensorRT plan; {cure}")
    library.forget_errors()
    try:
        runtime: Runtime = trt.Runtime(library.logger)
    except TypeError as error:  # what the bindings make of a null pointer
        raise BackendUnavailable(
            f"TensorRT cannot start ({library.last_error()}); see what is missing with: edgekd doctor"
        ) from error
    engine: ICudaEngine | None = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise BundleError(
            f"TensorRT cannot load {path} ({library.last_error()}): damaged, or of another GPU or version; {cure}"
        )
    return Plan(library, cuda, runtime, engine)


def largest_shapes(plan: Plan) -> dict[str, Shape]:
    """Return the shape of every input and output when all inputs are as large as the profile allows.

    Raises:
        BundleError: the size of an output depends on the content of an input.
    """
    engine = plan.engine
    names: list[str] = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    context = plan.create_context()
    for name in names:
        if is_input(engine, name):
            context.set_input_shape(name, profile_of(engine, name)[2])
    shapes = {name: tuple(context.get_tensor_shape(name)) for name in names}
    unknown = [name for name, shape in shapes.items() if min(shape, default=1) < 0]
    if unknown:
        raise BundleError(
            f"output {unknown[0]} of the plan has a size that depends on its content; export the graph again"
        )
    return shapes


def is_input(engine: ICudaEngine, name: str) -> bool:
    """Say whether a tensor of the plan is an input."""
    mode: TensorIOMode = engine.get_tensor_mode(name)
    return bool(mode.name == "INPUT")


def dtype_of(engine: ICudaEngine, name: str) -> np.dtype[Any]:
    """Return the dtype of a tensor of the plan.

    Raises:
        BundleError: NumPy lacks this type.
    """
    dtype: DataType = engine.get_tensor_dtype(name)
    if dtype.name not in _DTYPES:
        raise BundleError(
            f"tensor {name} of the plan is {dtype.name}, expected one of {', '.join(_DTYPES)}; export it again"
        )
    return np.dtype(_DTYPES[dtype.name])


def profile_of(engine: ICudaEngine, name: str) -> list[Shape]:
    """Return min, opt and max of an input's first profile; all three are its own shape when that is static."""
    static: Shape = tuple(engine.get_tensor_shape(name))
    if -1 not in static:
        return [static] * 3
    return [tuple(shape) for shape in engine.get_tensor_profile_shape(name, 0)]
