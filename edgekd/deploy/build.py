"""A model set becomes a bundle: one engine per stage, a manifest, written in one step.

read the set -> decide sizes -> build the engines in a temporary folder -> manifest -> rename
"""

from __future__ import annotations

import datetime
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import edgekd
from edgekd.bundle import (
    BackendName,
    EngineStage,
    GateResult,
    Manifest,
    Precision,
    Target,
    describe_file,
    listed_files,
    write_manifest,
)
from edgekd.deploy.auto_precision import Choice, choose_precision, choose_with_int8
from edgekd.deploy.device_packages import require_device_packages
from edgekd.deploy.input_sizes import Shapes, named_shape, opened, shapes_of, sized
from edgekd.deploy.openvino_build import write_network
from edgekd.errors import BuildError
from edgekd.files import atomic_folder, scratch_folder
from edgekd.graphs import STAGES_OF_KIND, Kind, StageName, is_input_size
from edgekd.model_set import ModelSet, Pipeline, read_model_set
from edgekd.runtime.cuda import n_multiprocessors

PrecisionWish = Literal["auto", "fp32", "bf16", "fp16", "int8"]
PRECISIONS: dict[BackendName, tuple[Precision, ...]] = {
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "onnxruntime": ("fp32", "int8"),
    "tensorrt": ("fp32", "fp16", "int8"),
    "tensorrt-rtx": ("fp32", "fp16", "int8"),
}
DEFAULT_BUCKETS = (1, 4, 8, 16)
Report = Callable[[str], None]


@dataclass(frozen=True)
class BuildOptions:
    """How to build a bundle.

    Attributes:
        backend: which library will run it.
        precision: of the arithmetic; `auto` measures on a CPU and means fp16 for TensorRT.
        compute_capability: such as "8.9", of the GPU to build for; None for the GPU at hand.
        detector_px, encoder_px: (height, width) of the inputs; None keeps what the models were exported for.
        square: feed the full size always; else a CPU network with open sizes also takes smaller ones, see
            `smaller_sizes`. A TensorRT plan and a calibrated graph hold one size.
        max_boxes: most boxes a picture.
        box_buckets: numbers of boxes the decoder is called with; empty leaves the number open.
        workspace_bytes, optimization_level, timing_cache: TensorRT's; see `PlanOptions`.
        gate: what an accuracy gate measured, for the manifest; see `edgekd.deploy.gate`.
        notes: lines for the manifest beside those of the stages.
    """

    backend: BackendName = "openvino"
    precision: PrecisionWish = "auto"
    compute_capability: str | None = None
    detector_px: tuple[int, int] | None = None
    encoder_px: tuple[int, int] | None = None
    square: bool = False
    max_boxes: int = 300
    box_buckets: tuple[int, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    gate: GateResult | None = None
    notes: tuple[str, ...] = ()


def build_bundle(
    models: Path, destination: Path, options: BuildOptions, report: Report = lambda line: None
) -> Manifest:
    """Build the engines of a model set.

    Args:
        models: what `edgekd export` or `edgekd calibrate` wrote.
        destination: the bundle to make or replace; nothing is left there when the build fails or is interrupted.
        options: backend, precision, sizes.
        report: called with one line for each step.

    Raises:
        ModelError: the model set is damaged.
        BackendUnavailable: the backend is not on this machine.
        BuildError: options that do not fit each other, or a graph that the backend refuses.
        InputError: `destination` holds something else, or the disk is full or read-only.
    """
    if options.backend != "openvino":
        require_device_packages()
    model_set = read_model_set(models)
    _check_options(options, model_set)
    one_size = options.square or options.backend.startswith("tensorrt")
    pipeline = sized(model_set, options.detector_px, options.encoder_px, one_size)
    shapes = shapes_of(pipeline)
    with atomic_folder(destination, listed_files) as folder:
        stages, notes = {}, []
        for name in STAGES_OF_KIND[model_set.kind]:
            report(f"building {name}")
            stage, note = _build_stage(name, models, folder, model_set, shapes, options)
            stages[name] = stage
            notes.append(note)
            report(note)
        manifest = _manifest(model_set.kind, pipeline, stages, options, tuple(notes))
        write_manifest(folder, manifest)
    return manifest


def _check_options(options: BuildOptions, model_set: ModelSet) -> None:
    offered = PRECISIONS[options.backend]
    if options.precision != "auto" and options.precision not in offered:
        raise BuildError(
            f"{options.backend} has no {options.precision}, it builds {', '.join(offered)}; give another --precision"
        )
    if options.precision == "int8" and not any(stage.quantized for stage in model_set.stages.values()):
        raise BuildError(
            "int8 was asked for and no graph is quantized; run first: edgekd calibrate MODELS --images DIR"
        )
    if list(options.box_buckets) != sorted(set(options.box_buckets)) or any(size < 1 for size in options.box_buckets):
        raise BuildError(
            f"box buckets are {options.box_buckets}, expected ascending numbers such as 1,4,8; give --buckets"
        )
    if options.encoder_px and model_set.pipeline.encoder_input is None:
        raise BuildError(
            f"a segmenter size was given for models of the kind {model_set.kind}, whose masks have the size that they "
            "were exported with; build without it"
        )
    _check_calibration(options, model_set)
    for size in (options.detector_px, options.encoder_px):
        if size and not is_input_size(size):
            raise BuildError(
                f"the size {size[1]}x{size[0]} has a side that is not a multiple of 32 up to 8192; try 640x640"
            )


def _check_calibration(options: BuildOptions, model_set: ModelSet) -> None:
    """Ranges hold for one size, and Q/DQ pairs for one kind of engine library."""
    wanted = {"detector": options.detector_px, "encoder": options.encoder_px}
    specs = model_set.pipeline.picture_inputs()
    for name, stage in model_set.stages.items():
        if not stage.quantized:
            continue
        target = (stage.calibration or {}).get("target", "")
        on_gpu = options.backend.startswith("tensorrt")
        if options.backend != "onnxruntime" and target != ("tensorrt" if on_gpu else "cpu"):
            raise BuildError(
                f"the {name} was calibrated for {target or 'an unknown target'} and {options.backend} was asked for; "
                f"calibrate with --target {'tensorrt' if on_gpu else 'cpu'}"
            )
        size, spec = wanted.get(name), specs.get(name)
        if size and spec and size != (spec.height_px, spec.width_px):
            raise BuildError(
                f"the {name} was calibrated at {spec.width_px}x{spec.height_px} and {size[1]}x{size[0]} was asked for; "
                "export with that size and calibrate again"
            )


def _build_stage(
    name: StageName, models: Path, folder: Path, model_set: ModelSet, shapes: Shapes, options: BuildOptions
) -> tuple[EngineStage, str]:
    onnx_stage = model_set.stages[name]
    inputs = shapes.full[name]
    with scratch_folder("build") as scratch:
        room = scratch if onnx_stage.quantized else None
        path, choice = _graph(name, models / onnx_stage.file, inputs, options, room)
        if options.backend == "openvino":
            files = write_network(path, shapes.built[name], folder / f"{name}.xml")
        elif options.backend == "onnxruntime":
            files = [Path(shutil.copyfile(path, folder / f"{name}.onnx"))]
        else:
            pinned = (onnx_stage.calibration or {}).get("fp16_overflow", "").split()
            files = [
                _build_tensorrt(
                    path, inputs, folder / f"{name}.engine", replace(options, precision=choice.precision), pinned
                )
            ]
    stage = EngineStage(
        files=tuple(describe_file(file) for file in files),
        precision=choice.precision,
        inputs=tuple(named_shape(spec, shapes.built[name][spec.name]) for spec in onnx_stage.inputs),
        outputs=onnx_stage.outputs,
        onnx_sha256=onnx_stage.sha256,
        source=onnx_stage.source,
        calibration=onnx_stage.calibration if choice.precision == "int8" else None,
    )
    return stage, f"{name}: {choice.precision}, {choice.reason}"


def _graph(
    name: StageName, path: Path, inputs: dict[str, tuple[int, ...]], options: BuildOptions, scratch: Path | None
) -> tuple[Path, Choice]:
    """The graph as its precision wants it, and the choice of that; `scratch` is given for a graph with Q/DQ pairs.

    A Q/DQ graph becomes one with INT8 weights, or, where a float precision is asked for, the float graph inside it.
    """
    if scratch is None:
        return path, _precision(name, path, inputs, options)
    import onnx

    from edgekd.deploy.qdq import fold_weights, keep_quantized

    model = onnx.load(path)
    int8, plain = scratch / "int8.onnx", scratch / "float.onnx"
    onnx.save(fold_weights(model), int8)
    onnx.save(keep_quantized(model, []), plain)
    wish = options.precision
    if wish == "auto" and options.backend == "openvino":
        choice = choose_with_int8(name, int8, plain, inputs)
    elif wish == "auto" or wish == "int8":
        choice = Choice("int8", "the graph carries Q/DQ pairs")
    else:
        choice = Choice(wish, "as asked for, without the Q/DQ pairs")
    return int8 if choice.precision == "int8" else plain, choice


def _precision(name: StageName, path: Path, inputs: dict[str, tuple[int, ...]], options: BuildOptions) -> Choice:
    """Decide the arithmetic of a float graph."""
    wish = options.precision
    on_gpu = options.backend.startswith("tensorrt")
    if wish == "int8":
        return Choice("fp16" if on_gpu else "fp32", "the graph has no Q/DQ pairs, so it stays float")
    if wish != "auto":
        return Choice(wish, "as asked for")
    if on_gpu:
        return Choice("fp16", "TensorRT's default here, with fp32 islands")
    if options.backend == "onnxruntime":
        return Choice("fp32", "ONNX Runtime's float arithmetic on a CPU")
    return choose_precision(name, path, inputs)


def _build_tensorrt(
    path: Path, inputs: dict[str, tuple[int, ...]], target: Path, options: BuildOptions, pinned: list[str]
) -> Path:
    """Fix the sizes in the graph, then build a plan; only the number of boxes keeps a profile.

    `pinned` tensors overflowed FP16 on the calibration pictures and stay in FP32, where they are still in the graph.
    """
    import onnx

    from edgekd.deploy.onnx_edit import fix_shapes
    from edgekd.deploy.tensorrt_build import PlanOptions, build_plan

    fixed = target.with_suffix(".fixed.onnx")
    graph = fix_shapes(onnx.load(path), {key: opened(shape) for key, shape in inputs.items()})
    made = {output for node in graph.graph.node for output in node.output}
    onnx.save(graph, fixed)
    buckets = options.box_buckets or DEFAULT_BUCKETS
    usual = min((size for size in buckets if size >= 8), default=buckets[-1])
    profiles = {
        key: tuple((size, *shape[1:]) for size in (1, usual, buckets[-1]))
        for key, shape in inputs.items()
        if -1 in shape
    }
    plan = build_plan(
        fixed,
        PlanOptions(
            rtx=options.backend == "tensorrt-rtx",
            compute_capability=options.compute_capability,
            precision=options.precision,  # type: ignore[arg-type]
            profiles=profiles,  # type: ignore[arg-type]
            workspace_bytes=options.workspace_bytes,
            optimization_level=options.optimization_level,
            timing_cache=options.timing_cache,
            fp32_nodes=tuple(tensor for tensor in pinned if tensor in made),
        ),
    )
    fixed.unlink()
    target.write_bytes(plan)
    return target


def _manifest(
    kind: Kind,
    pipeline: Pipeline,
    stages: dict[StageName, EngineStage],
    options: BuildOptions,
    notes: tuple[str, ...],
) -> Manifest:
    on_gpu = options.backend.startswith("tensorrt")
    buckets = options.box_buckets or (DEFAULT_BUCKETS if on_gpu else ())
    return Manifest(
        edgekd_version=edgekd.__version__,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        backend=options.backend,
        backend_version=backend_version(options.backend),
        target=Target(
            os=platform.system().lower(),
            machine=platform.machine(),
            compute_capability=_compute_capability(options) if on_gpu else None,
            # TensorRT-RTX chooses kernels where the plan runs, so its plans fit every board of a compute capability.
            n_multiprocessors=n_multiprocessors() if options.backend == "tensorrt" else None,
        ),
        kind=kind,
        pipeline=pipeline,
        max_boxes=options.max_boxes,
        box_buckets=buckets,
        stages=stages,
        gate=options.gate,
        notes=(*notes, *options.notes),
    )


def _compute_capability(options: BuildOptions) -> str | None:
    if options.compute_capability:
        return options.compute_capability
    from edgekd.runtime.cuda import compute_capability

    return compute_capability()


def backend_version(backend: BackendName) -> str:
    """Return the version of a backend's library, as it goes into the manifest."""
    if backend == "openvino":
        import openvino

        return str(openvino.__version__)
    if backend == "onnxruntime":
        import onnxruntime

        return str(onnxruntime.__version__)
    from edgekd.runtime.tensorrt_library import library_version

    return library_version(rtx=backend == "tensorrt-rtx")
