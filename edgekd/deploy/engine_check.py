"""A bundle for a GPU is compared with ONNX Runtime before anybody trusts it: TensorRT has computed networks wrong.

build -> both bundles on the demonstration picture -> the stage that disagrees in fp32 -> compare again -> destination

ONNX Runtime runs the same graphs, Q/DQ pairs included, so what differs is the engine's arithmetic.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekd.bundle import Manifest, listed_files, read_manifest, write_manifest
from edgekd.deploy.build import Report, build_bundle, choices_of
from edgekd.deploy.build_options import BuildOptions, Choice
from edgekd.deploy.gate_limits import GateOptions
from edgekd.errors import GateFailed
from edgekd.files import atomic_folder, scratch_folder
from edgekd.graphs import StageName
from edgekd.measure.parity import ParityOptions, ParityReport, compare_chains
from edgekd.package_files import DEMO_PICTURE
from edgekd.runtime.chain import Chain
from edgekd.runtime.cuda import compute_capability
from edgekd.runtime.pictures import where_prepared

LIMITS: Mapping[str, float] = {"box_match": 0.9, "embedding_cosine": 0.99, "mask_iou": 0.9}
"""Lowest agreement of an engine with ONNX Runtime; a correct fp16 engine is above 0.95, 0.999 and 0.98."""


def build_accepted(
    models: Path, destination: Path, options: BuildOptions, wanted: GateOptions | None, report: Report
) -> Manifest:
    """Build a bundle and hold it to a gate; without one, engines for a GPU are compared with ONNX Runtime.

    Raises:
        GateFailed: see `apply_gate` and `build_checked`.
        EdgekdError: as for `build_bundle`.
    """
    if wanted is not None:
        from edgekd.deploy.gate import apply_gate  # needs onnx, which a build without a gate does not

        return apply_gate(models, destination, options, wanted, report)
    build = build_checked if options.facts.on_gpu else build_bundle
    return build(models, destination, options, report)


def build_checked(
    models: Path, destination: Path, options: BuildOptions, report: Report = lambda line: None
) -> Manifest:
    """Build a bundle for a GPU, compare it with ONNX Runtime, and put a stage that disagrees into fp32.

    Args:
        models, destination, options, report: as for `build_bundle`; the manifest's notes say what was measured.

    Raises:
        GateFailed: a stage disagrees, in fp32 too; nothing is left at `destination`.
        EdgekdError: as for `build_bundle`.
    """
    if options.facts.rtx and compute_capability() is None:
        note = "engines: not compared with ONNX Runtime, because this machine shows no GPU"
        return build_bundle(models, destination, replace(options, notes=(*options.notes, note)), report)
    with scratch_folder("build") as room:
        candidate, reference = room / "candidate", room / "reference"
        manifest = build_bundle(models, candidate, options, report)
        build_bundle(models, reference, _reference_options(manifest, options))
        found = compare_engines(reference, candidate)
        lowered = [stage for stage in _disagreeing(manifest, found) if manifest.stages[stage].precision != "fp32"]
        if lowered:
            report(f"{', '.join(lowered)}: disagrees with ONNX Runtime ({_words(found)}), building it in fp32")
            choices = _in_fp32(manifest, lowered, found)
            manifest = build_bundle(models, candidate, replace(options, choices=choices), report)
            found = compare_engines(reference, candidate)
        if failing := _disagreeing(manifest, found):
            raise GateFailed(
                f"the {failing[0]} that {options.backend} built disagrees with ONNX Runtime ({_words(found)}), in fp32 "
                "too; update TensorRT, or build for a CPU with `backend` onnxruntime"
            )
        notes = (*manifest.notes, f"engines: {_words(found)}", pictures_of(candidate))
        manifest = manifest.model_copy(update={"notes": notes})
        with atomic_folder(destination, listed_files) as folder:
            shutil.copytree(candidate, folder, dirs_exist_ok=True)
            write_manifest(folder, manifest)
    return read_manifest(destination)


def compare_engines(reference: Path, candidate: Path) -> ParityReport:
    """Run two bundles of the same models on the demonstration picture."""
    with Chain.open(reference) as first, Chain.open(candidate) as second:
        kind = first.manifest.kind
        options = ParityOptions(segmenter=kind != "yolo-seg", embeddings=kind == "sam")
        return compare_chains(first, second, [DEMO_PICTURE], options)


def pictures_of(bundle: Path) -> str:
    """Say where this machine prepares the pictures of a bundle: on the GPU, or on the host and why."""
    with Chain.open(bundle) as chain:
        return where_prepared(chain.pictures)


def _reference_options(manifest: Manifest, options: BuildOptions) -> BuildOptions:
    """Options that give ONNX Runtime the same graphs at the same sizes."""
    is_int8 = any(stage.precision == "int8" for stage in manifest.stages.values())
    return BuildOptions(
        backend=options.facts.stand_in,
        precision="int8" if is_int8 else "fp32",
        detector_px=options.detector_px,
        encoder_px=options.encoder_px,
        square=True,
        max_boxes=options.max_boxes,
    )


def _disagreeing(manifest: Manifest, found: ParityReport) -> list[StageName]:
    """Return the stages below the limits; masks are those of the last stage, where its input was right."""
    stages: list[StageName] = []
    if _below("box_match", found.box_match):
        stages.append("detector")
    if _below("embedding_cosine", found.embedding_cosine):
        stages.append("encoder")
    elif _below("mask_iou", found.mask_iou):
        stages.append(list(manifest.stages)[-1])
    return stages


def _below(name: str, value: float | None) -> bool:
    return value is not None and not value >= LIMITS[name]


def _in_fp32(manifest: Manifest, stages: list[StageName], found: ParityReport) -> dict[StageName, Choice]:
    reason = f"because its {{}} engine disagreed with ONNX Runtime ({_words(found)})"
    lowered = {stage: Choice("fp32", reason.format(manifest.stages[stage].precision)) for stage in stages}
    return choices_of(manifest) | lowered


def _words(found: ParityReport) -> str:
    values = {"boxes": found.box_match, "embeddings": found.embedding_cosine, "masks": found.mask_iou}
    return "agreement with ONNX Runtime: " + ", ".join(f"{k} {v:.4f}" for k, v in values.items() if v is not None)
