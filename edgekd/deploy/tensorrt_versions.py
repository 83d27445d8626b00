"""What differs between the TensorRT builders, each difference as one branch chosen by what the library has.

A TensorRT module goes in, a `Branch` comes out; nothing reads a version text.

    ExplicitBatch   8.6            precision is a builder flag, the graph stays float32
    StronglyTyped   10.x           the graph's own types decide, because a network flag says so
    Plain           11.x           only the graph's own types decide
    Rtx             TensorRT-RTX   as Plain, and the GPU is named, so none has to be present

The code outside the branches uses only what all of them have; a test imports the bindings of every version to prove it.
`Rtx` really builds in the tests. The other three need a GPU and have never built a plan: their calls are checked
against a recording stand-in, their names against the real bindings.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from edgekd.backends import Precision
from edgekd.errors import BackendUnavailable, BuildError
from edgekd.runtime.cuda import compute_capability as present_compute_capability

if TYPE_CHECKING:
    from tensorrt import IBuilderConfig, ILayer, INetworkDefinition, ITensor


class Plain:
    """TensorRT 11: strongly typed without being told; also the common ground of the other branches."""

    float16_in_graph = True
    reads_old_words_only = False

    def network_flags(self, trt: Any) -> int:
        """Return the bit field for `create_network`."""
        return 0

    def set_precision(
        self,
        trt: Any,
        config: IBuilderConfig,
        network: INetworkDefinition,
        precision: Precision,
        fp32_nodes: Collection[str],
    ) -> None:
        """Do nothing: float16 tensors and Q/DQ pairs of the graph are obeyed as they are."""

    def resolve_target(self, trt: Any, compute_capability: str | None) -> str:
        """Return the GPU to build for: the one at hand, because this TensorRT measures kernels while it builds.

        Args:
            trt: the TensorRT module.
            compute_capability: such as "8.7"; None for the GPU at hand.

        Raises:
            BackendUnavailable: there is no GPU.
            BuildError: another GPU is wanted.
        """
        present = present_compute_capability()
        if present is None:
            raise BackendUnavailable(
                "TensorRT builds an engine on the GPU that will run it and this machine shows none; build there, or "
                "for a desktop RTX GPU use: edgekd build-engine MODELS --backend tensorrt-rtx --sm 89"
            )
        if compute_capability not in (None, present):
            raise BuildError(
                f"an engine for compute capability {compute_capability} was asked for and this GPU has {present}; "
                "TensorRT builds only for the GPU at hand, leave `compute_capability` out or build on the other machine"
            )
        return present

    def set_target(self, trt: Any, config: IBuilderConfig, compute_capability: str) -> None:
        """Do nothing: the builder takes the GPU at hand."""

    def share_profiles(self, trt: Any, config: IBuilderConfig) -> None:
        """Do nothing: since 10.0 any number of contexts may use one profile."""


class StronglyTyped(Plain):
    """TensorRT 10: weak typing is still the default, so strong typing is asked for."""

    def network_flags(self, trt: Any) -> int:
        """Return STRONGLY_TYPED."""
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


class ExplicitBatch(Plain):
    """TensorRT 8.6: the builder may lower any float32 layer that is not held."""

    float16_in_graph = False
    reads_old_words_only = True

    def network_flags(self, trt: Any) -> int:
        """Return EXPLICIT_BATCH, without which the ONNX parser refuses to work."""
        return 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)

    def set_precision(
        self,
        trt: Any,
        config: IBuilderConfig,
        network: INetworkDefinition,
        precision: Precision,
        fp32_nodes: Collection[str],
    ) -> None:
        """Allow float16 (and INT8 for Q/DQ graphs); hold softmax, normalisation, sums and `fp32_nodes` in float32."""
        if precision == "fp32":
            return
        config.set_flag(trt.BuilderFlag.FP16)
        if precision == "int8":
            config.set_flag(trt.BuilderFlag.INT8)
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        islands = (trt.LayerType.SOFTMAX, trt.LayerType.NORMALIZATION, trt.LayerType.REDUCE)
        for index in range(network.num_layers):
            layer: ILayer = network.get_layer(index)
            if layer.type in islands or layer.name in fp32_nodes:
                self._hold_in_float32(trt, layer)

    def share_profiles(self, trt: Any, config: IBuilderConfig) -> None:
        """Let several contexts use one profile: an engine opens one context for each input shape and clone."""
        config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)

    def _hold_in_float32(self, trt: Any, layer: ILayer) -> None:
        for index in range(layer.num_outputs):
            output: ITensor = layer.get_output(index)
            if output.dtype != trt.DataType.FLOAT:
                return
        layer.precision = trt.DataType.FLOAT
        for index in range(layer.num_outputs):
            layer.set_output_type(index, trt.DataType.FLOAT)


class Rtx(Plain):
    """TensorRT-RTX: kernels are chosen on the user's machine, so the build needs the GPU's name and not the GPU."""

    def resolve_target(self, trt: Any, compute_capability: str | None) -> str:
        """Return the GPU to build for: the named one, or the one at hand.

        Raises:
            BackendUnavailable: no GPU was named and there is none.
            BuildError: TensorRT-RTX has no kernels for that GPU.
        """
        wanted = compute_capability or present_compute_capability()
        if wanted is None:
            raise BackendUnavailable(
                "TensorRT-RTX was not told for which GPU to build and this machine shows none; give its "
                "`compute_capability`, such as 8.9"
            )
        known = [f"{sm // 10}.{sm % 10}" for sm in map(int, trt.ComputeCapability.__members__.values()) if sm >= 10]
        if wanted not in known:
            raise BuildError(
                f"TensorRT-RTX has no kernels for compute capability {wanted}, it knows {', '.join(known)}; "
                "build for other GPUs on the device itself with: edgekd build-engine MODELS --backend tensorrt"
            )
        return wanted

    def set_target(self, trt: Any, config: IBuilderConfig, compute_capability: str) -> None:
        """Name the GPU in the configuration.

        Raises:
            BuildError: the library refuses it.
        """
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(trt.ComputeCapability(int(compute_capability.replace(".", ""))), 0):
            raise BuildError(
                f"TensorRT-RTX refuses compute capability {compute_capability}; give another `compute_capability`"
            )


def branch_of(trt: Any) -> Plain:
    """Choose the branch of a TensorRT module by what it has."""
    if hasattr(trt, "ComputeCapability"):
        return Rtx()
    if not hasattr(trt.BuilderFlag, "FP16"):
        return Plain()
    if hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        return StronglyTyped()
    return ExplicitBatch()
