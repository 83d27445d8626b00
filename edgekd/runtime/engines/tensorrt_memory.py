"""Execution contexts that take their scratch memory from outside, in the words of each TensorRT.

A TensorRT module goes in, a `ContextMemory` comes out: how much memory a plan wants, a context without memory, and the
call that gives it some. Without this every context would keep hundreds of megabytes of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tensorrt import ICudaEngine, IExecutionContext, IRuntimeConfig


class ContextMemory(ABC):
    """What the versions have in common: three calls."""

    @abstractmethod
    def scratch_bytes(self, engine: ICudaEngine) -> int:
        """Return how many bytes any context of this engine wants at most."""

    @abstractmethod
    def create(self, trt: Any, engine: ICudaEngine) -> IExecutionContext | None:
        """Return a context without memory, None where TensorRT refuses."""

    @abstractmethod
    def give(self, context: IExecutionContext, address: int, n_bytes: int) -> None:
        """Let a context use device memory, aligned to 256 bytes; several contexts may, one after the other."""

    def can_record(self, context: IExecutionContext, stream: int) -> bool:
        """Say whether a run of this context may be recorded as a CUDA graph."""
        return True


class OldMemory(ContextMemory):
    """TensorRT 8.6 to 10.2."""

    def scratch_bytes(self, engine: ICudaEngine) -> int:
        """Return `device_memory_size`."""
        return int(engine.device_memory_size)

    def create(self, trt: Any, engine: ICudaEngine) -> IExecutionContext | None:
        """Return a context that must be given memory."""
        context: IExecutionContext | None = engine.create_execution_context_without_device_memory()
        return context

    def give(self, context: IExecutionContext, address: int, n_bytes: int) -> None:
        """Set the address; its size is trusted."""
        context.device_memory = address


class SizedMemory(ContextMemory):
    """TensorRT 10.3 to 11.x."""

    def scratch_bytes(self, engine: ICudaEngine) -> int:
        """Return `device_memory_size_v2`."""
        return int(engine.device_memory_size_v2)

    def create(self, trt: Any, engine: ICudaEngine) -> IExecutionContext | None:
        """Return a context that must be given memory."""
        context: IExecutionContext | None = engine.create_execution_context(
            trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        return context

    def give(self, context: IExecutionContext, address: int, n_bytes: int) -> None:
        """Set address and size."""
        context.set_device_memory(address, n_bytes)


class RtxMemory(SizedMemory):
    """TensorRT-RTX: kernels for a shape are compiled when the shape is set, not later behind a recorded graph."""

    def create(self, trt: Any, engine: ICudaEngine) -> IExecutionContext | None:
        """Return a context that must be given memory and compiles its kernels at once."""
        config: IRuntimeConfig = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        context: IExecutionContext | None = engine.create_execution_context(config)
        return context

    def can_record(self, context: IExecutionContext, stream: int) -> bool:
        """Ask the context: one whose kernels are not all compiled cannot be recorded."""
        return bool(context.is_stream_capturable(stream))


def memory_of(trt: Any) -> ContextMemory:
    """Choose by what a TensorRT module has; nothing reads a version text."""
    if hasattr(trt, "ComputeCapability"):
        return RtxMemory()
    return SizedMemory() if hasattr(trt.IExecutionContext, "set_device_memory") else OldMemory()
