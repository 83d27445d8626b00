"""A model set becomes a bundle: one engine per stage, a manifest, written in one step.

read the set -> decide sizes -> build the engines in a temporary folder -> manifest -> rename
"""

from __future__ import annotations

import datetime
import importlib
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import cv2
import numpy as np

import edgekd
from edgekd.backends import BACKENDS, BackendName
from edgekd.bundle import EngineStage, Manifest, Target, describe_file, listed_files, write_manifest
from edgekd.choices import PrecisionWish
from edgekd.deploy.auto_precision import StageGraphs, choose, split_graph
from edgekd.deploy.build_options import BuildOptions, Choice, EngineJob
from edgekd.deploy.input_sizes import Shapes, named_shape, shapes_of, sized
from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable, BuildError, BundleMismatch
from edgekd.files import atomic_folder, scratch_folder
from edgekd.graphs import STAGES_OF_KIND, Kind, StageName, is_input_size
from edgekd.model_set import ModelSet, Pipeline, read_model_set
from edgekd.package_files import DEMO_PICTURE
from edgekd.runtime.chain import Chain
from edgekd.runtime.cuda import n_multiprocessors
from edgekd.runtime.known_answer import SIZE_PX, ask
from edgekd.runtime.sources import read_picture

__all__ = ["BuildOptions", "PrecisionWish", "backend_version", "build_bundle", "choices_of"]

Report = Callable[[str], None]


class _Builder(Protocol):
    """What the builder file of a backend offers."""

    def build(self, job: EngineJob) -> list[Path]:
        """Write the engine of one stage; returns its files, the one to open first."""

    def version(self, backend: BackendName) -> str:
        """Return the version of the backend's library."""


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
    if options.facts.needs_device_packages:
        require_device_packages()
    model_set = read_model_set(models)
    _check_options(options, model_set)
    one_size = options.square or options.facts.one_size
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
        if options.known_answer:
            manifest = _with_known_answer(folder, manifest, report)
    return manifest


def _with_known_answer(folder: Path, manifest: Manifest, report: Report) -> Manifest:
    """Ask the engines about the demonstration picture, where they run here, and write what they say."""
    try:
        with Chain.open(folder) as chain:
            report("asking the engines about a small picture")
            height, width = SIZE_PX
            pixels = cv2.resize(read_picture(DEMO_PICTURE), (width, height), interpolation=cv2.INTER_AREA)
            picture = folder / "known_answer.png"
            picture.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
            answer = ask(chain, describe_file(picture), np.asarray(pixels, np.uint8))
    except (BackendUnavailable, BundleMismatch) as error:
        report(f"no known answer: {error}")
        return manifest
    manifest = manifest.model_copy(update={"known_answer": answer})
    write_manifest(folder, manifest)
    return manifest


def _check_options(options: BuildOptions, model_set: ModelSet) -> None:
    offered = options.facts.precisions
    if options.precision != "auto" and options.precision not in offered:
        raise BuildError(
            f"precision is {options.precision} and {options.backend} builds {', '.join(offered)}; give one of these"
        )
    if options.precision == "int8" and not any(stage.quantized for stage in model_set.stages.values()):
        raise BuildError(
            "int8 was asked for and no graph is quantized; run first: edgekd calibrate MODELS --images DIR"
        )
    if list(options.box_buckets) != sorted(set(options.box_buckets)) or any(size < 1 for size in options.box_buckets):
        raise BuildError(f"box_buckets is {options.box_buckets}, expected ascending numbers such as 1,4,8")
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
        target, fitting = (stage.calibration or {}).get("target", ""), options.facts.calibration_targets
        if target not in fitting:
            raise BuildError(
                f"the {name} was calibrated for {target or 'an unknown target'} and {options.backend} was asked for; "
                f"run again: edgekd calibrate MODELS --target {fitting[0]}"
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
    with scratch_folder("build") as scratch:
        path = models / onnx_stage.file
        graphs = split_graph(path, scratch) if onnx_stage.quantized else StageGraphs(path, None)
        choice = choose(name, graphs, shapes.full[name], options)
        job = EngineJob(
            graph=graphs.graph(choice.precision),
            full=shapes.full[name],
            built=shapes.built[name],
            target=folder / name,
            precision=choice.precision,
            fp32_tensors=tuple((onnx_stage.calibration or {}).get("fp16_overflow", "").split()),
            options=options,
        )
        files = _builder(options.backend).build(job)
    stage = EngineStage(
        files=tuple(describe_file(file) for file in files),
        precision=choice.precision,
        float_precision=choice.float_precision,
        inputs=tuple(named_shape(spec, shapes.built[name][spec.name]) for spec in onnx_stage.inputs),
        outputs=onnx_stage.outputs,
        onnx_sha256=onnx_stage.sha256,
        source=onnx_stage.source,
        calibration=onnx_stage.calibration if choice.precision == "int8" else None,
    )
    floats = f" with {choice.float_precision} beside it" if choice.float_precision else ""
    return stage, f"{name}: {choice.precision}{floats}, {choice.reason}"


def choices_of(manifest: Manifest) -> dict[StageName, Choice]:
    """Return what was chosen for each stage of a bundle, to build another that computes the same."""
    reasons = [note.partition(", ")[2] for note in manifest.notes]
    return {
        name: Choice(stage.precision, reason, stage.float_precision)
        for (name, stage), reason in zip(manifest.stages.items(), reasons, strict=False)
    }


def _manifest(
    kind: Kind,
    pipeline: Pipeline,
    stages: dict[StageName, EngineStage],
    options: BuildOptions,
    notes: tuple[str, ...],
) -> Manifest:
    return Manifest(
        format_version=3 if pipeline.head.is_oriented else 2,
        edgekd_version=edgekd.__version__,
        created=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        backend=options.backend,
        backend_version=backend_version(options.backend),
        target=Target(
            os=platform.system().lower(),
            machine=platform.machine(),
            compute_capability=_compute_capability(options) if options.facts.on_gpu else None,
            n_multiprocessors=n_multiprocessors() if options.facts.bound_to_board else None,
        ),
        kind=kind,
        pipeline=pipeline,
        max_boxes=options.max_boxes,
        box_buckets=options.buckets,
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
    return _builder(backend).version(backend)


def _builder(backend: BackendName) -> _Builder:
    """Import the builder file of a backend, which imports its library."""
    module = importlib.import_module(f"edgekd.deploy.{BACKENDS[backend].module}_build")
    return cast(_Builder, module)


PACKAGES = ("onnx", "onnxsim", "onnxruntime")


def require_device_packages() -> None:
    """Check them before the first graph is read.

    Raises:
        BackendUnavailable: one of `PACKAGES` is not installed.
    """
    missing = [name for name in PACKAGES if not has_module(name)]
    if missing:
        raise BackendUnavailable(
            f"{', '.join(missing)} cannot be imported and building an engine needs it; "
            "install it with: pip install 'edgekd[device]'"
        )
