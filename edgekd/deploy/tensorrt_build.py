"""One ONNX graph to one serialized TensorRT plan, the same bytes that `trtexec --loadEngine` reads.

`build` takes a stage and writes its file; `build_plan` takes an `.onnx` file and returns bytes. The graph is parsed
from memory, after its floats were lowered where the branch of `tensorrt_versions` wants that in the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekd.backends import BACKENDS, BackendName, Precision
from edgekd.deploy.build_options import EngineJob, InputShapes
from edgekd.deploy.float16 import fp32_node_names, is_quantized, read_onnx, to_float16
from edgekd.deploy.input_sizes import opened
from edgekd.deploy.onnx_edit import fix_shapes
from edgekd.deploy.tensorrt_legacy import for_tensorrt8
from edgekd.deploy.tensorrt_versions import Plain, branch_of
from edgekd.errors import BackendUnavailable, BuildError
from edgekd.files import write_bytes
from edgekd.runtime.tensorrt_library import TensorRtLibrary, library_version, one_line, tensorrt_library

if TYPE_CHECKING:
    import onnx
    from tensorrt import (
        Builder,
        IBuilderConfig,
        IHostMemory,
        INetworkDefinition,
        IOptimizationProfile,
        ITensor,
        ITimingCache,
        OnnxParser,
        ParserError,
    )

Shape = tuple[int, ...]
ShapeRange = tuple[Shape, Shape, Shape]
PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class PlanOptions:
    """How to build one plan.

    Attributes:
        rtx: use TensorRT-RTX instead of TensorRT.
        compute_capability: of the GPU to build for, such as "8.9"; None for the GPU at hand.
        precision: "fp32"; "fp16", with float32 islands; "int8", where the graph has Q/DQ pairs and float16 elsewhere.
        profiles: input name -> (min, opt, max) shape; needed for every input with a dynamic axis.
        workspace_bytes: most scratch memory that a kernel may ask for; None leaves it to the library.
        optimization_level: 0 (fast build) to 5 (fast engine); None leaves it to the library.
        timing_cache: file of measured kernel times, read when it exists and written after the build; not with `rtx`.
        fp32_nodes: names of ONNX nodes, or of their outputs, that stay in float32 beside the usual islands.
    """

    rtx: bool
    compute_capability: str | None
    precision: Precision
    profiles: Mapping[str, ShapeRange] = field(default_factory=dict)
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    fp32_nodes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what no TensorRT can do.

        Raises:
            BuildError: the precision, the level, the workspace or the timing cache cannot be used.
        """
        if self.precision not in PRECISIONS:
            raise BuildError(
                f"precision {self.precision} was asked for, TensorRT builds {', '.join(PRECISIONS)}; give one of them"
            )
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise BuildError(f"optimization_level is {self.optimization_level}, expected 0 to 5")
        if self.workspace_bytes is not None and self.workspace_bytes <= 0:
            raise BuildError(f"workspace_bytes is {self.workspace_bytes}, expected more than 0")
        if self.rtx and self.timing_cache is not None:
            raise BuildError(
                "TensorRT-RTX measures nothing while it builds, expected no timing cache; leave `timing_cache` out"
            )


def build(job: EngineJob) -> list[Path]:
    """Fix the sizes in the graph, then build a plan; only the number of boxes keeps a profile.

    Returns the one file written; errors as for `build_plan`.
    """
    options, target = job.options, job.target.with_suffix(".engine")
    fixed = job.target.with_suffix(".fixed.onnx")
    graph = fix_shapes(read_onnx(job.graph), {key: opened(shape) for key, shape in job.full.items()})
    made = {output for node in graph.graph.node for output in node.output}
    fixed.write_bytes(graph.SerializeToString())
    plan = build_plan(
        fixed,
        PlanOptions(
            rtx=options.facts.rtx,
            compute_capability=options.compute_capability,
            precision=job.precision,
            profiles=_profiles(job.full, options.buckets),
            workspace_bytes=options.workspace_bytes,
            optimization_level=options.optimization_level,
            timing_cache=options.timing_cache,
            fp32_nodes=tuple(tensor for tensor in job.fp32_tensors if tensor in made),
        ),
    )
    fixed.unlink()
    target.write_bytes(plan)
    return [target]


def version(backend: BackendName) -> str:
    """Return the version of TensorRT or TensorRT-RTX."""
    return library_version(BACKENDS[backend].rtx)


def _profiles(inputs: InputShapes, buckets: tuple[int, ...]) -> dict[str, ShapeRange]:
    """Smallest, usual and largest shape of every input whose number of boxes is open."""
    usual = min((size for size in buckets if size >= 8), default=buckets[-1])
    return {
        key: ((1, *shape[1:]), (usual, *shape[1:]), (buckets[-1], *shape[1:]))
        for key, shape in inputs.items()
        if -1 in shape
    }


def build_plan(onnx_path: Path, options: PlanOptions) -> bytes:
    """Build the plan of one graph.

    Args:
        onnx_path: the graph, float32 or with Q/DQ pairs; weights inside the file.
        options: target, precision, shapes.

    Returns:
        The serialized plan, without any header of ours.

    Raises:
        BackendUnavailable: the library, or the GPU that it needs, is not on this machine.
        ModelError: the file is not a usable ONNX graph, or a node to be kept in float32 is not in it.
        BuildError: the parser or the builder refuses the graph, the shapes or the target.
    """
    library = tensorrt_library(options.rtx)
    trt, branch = library.api, branch_of(library.api)
    compute_capability = branch.resolve_target(trt, options.compute_capability)
    model, fp32_nodes = _read(onnx_path, options, branch)
    builder = _create_builder(library)
    network: INetworkDefinition = builder.create_network(branch.network_flags(trt))
    # The parser owns the weights that the network points to: it lives until the plan is there.
    parser: OnnxParser = trt.OnnxParser(network, library.logger)
    _parse(parser, model, onnx_path)
    config: IBuilderConfig = builder.create_builder_config()
    branch.set_target(trt, config, compute_capability)
    branch.set_precision(trt, config, network, options.precision, fp32_nodes)
    branch.share_profiles(trt, config)
    _set_limits(trt, config, options)
    _add_profile(builder, config, network, options.profiles)
    cache = _open_timing_cache(config, options.timing_cache)
    plan = _serialize(library, builder, network, config)
    if cache is not None and options.timing_cache is not None:
        write_bytes(options.timing_cache, bytes(cache.serialize()))
    return plan


def _read(path: Path, options: PlanOptions, branch: Plain) -> tuple[onnx.ModelProto, Collection[str]]:
    """Return the graph as this branch wants it, and the names of the nodes that stay in float32."""
    model = read_onnx(path)
    foreign = sorted(node.domain for node in model.graph.node if node.domain not in ("", "ai.onnx"))
    if foreign:
        raise BuildError(
            f"{path} holds operators of {foreign[0]}, expected plain ONNX; export it without graph fusions"
        )
    quantized = is_quantized(model)
    if quantized != (options.precision == "int8"):
        found, cure = (
            ("has Q/DQ pairs", "int8") if quantized else ("has no Q/DQ pairs", "fp16 or run edgekd calibrate first")
        )
        raise BuildError(
            f"{path} {found} and precision {options.precision} was asked for; build it with `precision` {cure}"
        )
    if branch.reads_old_words_only:
        model = for_tensorrt8(model)
    if options.precision == "fp32":
        return model, ()
    if branch.float16_in_graph:
        return to_float16(model, options.fp32_nodes), ()
    return model, fp32_node_names(model, options.fp32_nodes)


def _create_builder(library: TensorRtLibrary) -> Builder:
    trt = library.api
    try:
        builder: Builder = trt.Builder(library.logger)
    except TypeError as error:  # what the bindings make of a null pointer
        raise BackendUnavailable(
            f"TensorRT cannot make a builder ({library.last_error()}); see what is missing with: edgekd doctor"
        ) from error
    return builder


def _parse(parser: OnnxParser, model: onnx.ModelProto, path: Path) -> None:
    if parser.parse(model.SerializeToString()):
        return
    if parser.num_errors == 0:
        raise BuildError(f"TensorRT cannot read {path} and gives no reason; export the graph again")
    error: ParserError = parser.get_error(0)
    reason: str = error.desc()
    index: int = error.node()
    node = f" at node {model.graph.node[index].name}" if 0 <= index < len(model.graph.node) else ""
    raise BuildError(f"TensorRT cannot read {path} ({one_line(reason)}{node}); export the graph again")


def _set_limits(trt: Any, config: IBuilderConfig, options: PlanOptions) -> None:
    # TF32 keeps 10 of a float32's 23 bits of fraction; what is called fp32 here is fp32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level


def _add_profile(
    builder: Builder, config: IBuilderConfig, network: INetworkDefinition, profiles: Mapping[str, ShapeRange]
) -> None:
    inputs: dict[str, Shape] = {}
    for index in range(network.num_inputs):
        tensor: ITensor = network.get_input(index)
        inputs[tensor.name] = tuple(tensor.shape)
    unknown = sorted(set(profiles) - set(inputs))
    if unknown:
        raise BuildError(f"the graph has no input {unknown[0]}, it has {', '.join(inputs)}; correct the shape profile")
    dynamic = {name for name, shape in inputs.items() if -1 in shape}
    missing = sorted(dynamic - set(profiles))
    if missing:
        raise BuildError(f"input {missing[0]} has the dynamic shape {inputs[missing[0]]}; give it a shape profile")
    if not dynamic:
        return
    profile: IOptimizationProfile = builder.create_optimization_profile()
    for name, shapes in profiles.items():
        _check_shapes(name, inputs[name], shapes)
        profile.set_shape(name, *shapes)
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT refuses the shape profile {dict(profiles)}; give shapes that the graph allows")


def _check_shapes(name: str, shape: Shape, shapes: ShapeRange) -> None:
    for given in shapes:
        fits = len(given) == len(shape) and all(axis in (-1, size) for axis, size in zip(shape, given, strict=True))
        if not fits:
            raise BuildError(
                f"the profile gives input {name} the shape {given}, the graph has {shape}; correct the profile"
            )
    smallest, usual, largest = shapes
    if not all(1 <= a <= b <= c for a, b, c in zip(smallest, usual, largest, strict=True)):
        raise BuildError(
            f"the profile of input {name} is {shapes}, expected 1 <= min <= opt <= max; correct the profile"
        )


def _open_timing_cache(config: IBuilderConfig, path: Path | None) -> ITimingCache | None:
    if path is None:
        return None
    content = path.read_bytes() if path.is_file() else b""
    cache: ITimingCache | None = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, False):
        raise BuildError(
            f"TensorRT refuses the timing cache {path} (damaged, or of another GPU or version); delete it or name one"
        )
    return cache


def _serialize(
    library: TensorRtLibrary, builder: Builder, network: INetworkDefinition, config: IBuilderConfig
) -> bytes:
    library.forget_errors()
    plan: IHostMemory | None = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(
            f"TensorRT cannot build the engine ({library.last_error()}); try another `precision` or a larger workspace"
        )
    return bytes(plan)
