"""`edgekd inspect` and `edgekd doctor`: what a bundle is, what this machine is, and whether they fit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def inspect(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    json_file: Annotated[Path | None, typer.Option("--json", help="write the manifest as JSON")] = None,
) -> None:
    """Show what a bundle holds and where it comes from, without loading an engine."""
    from rich.table import Column, Table

    from edgekd.bundle import read_manifest
    from edgekd.cli.console import out, write_text

    manifest = read_manifest(bundle)
    target = manifest.target
    gpu = f", compute capability {target.compute_capability}" if target.compute_capability else ""
    out.print(f"{bundle}: {manifest.backend} {manifest.backend_version} for {target.os} {target.machine}{gpu}")
    out.print(f"made by edgekd {manifest.edgekd_version} on {manifest.created}")
    table = Table("stage", "precision", "MB", Column("inputs", overflow="fold"), "weights", "licence")
    for name, stage in manifest.stages.items():
        size = f"{sum(file.n_bytes for file in stage.files) / 1e6:.1f}"
        inputs = ", ".join(f"{spec.name} {'x'.join(str(n) for n in spec.shape)}" for spec in stage.inputs)
        trained = "" if stage.source.trained else " (untrained)"
        table.add_row(name, stage.precision, size, inputs, stage.source.name + trained, stage.source.licence)
    out.print(table)
    out.print(f"{len(manifest.pipeline.class_names)} classes: {', '.join(manifest.pipeline.class_names)}")
    for note in manifest.notes:
        out.print(f"  {note}")
    if gate := manifest.gate:
        limits = {name: f" (limit {limit:g})" for name, limit in gate.limits.items()}
        measured = ", ".join(f"{name} {value:.4f}{limits.get(name, '')}" for name, value in gate.measured.items())
        out.print(f"accuracy gate {'passed' if gate.passed else 'failed'} on {gate.n_images} pictures: {measured}")
        if gate.float_layers:
            out.print(f"  kept in float: {', '.join(gate.float_layers)}")
    if json_file:
        write_text(json_file, manifest.model_dump_json(indent=2) + "\n")


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="also say whether this bundle runs here")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the machine as JSON")] = None,
) -> None:
    """Show what this machine offers; with a bundle, check manifest, target, files and its known answer."""
    from rich.table import Table

    from edgekd.bundle import check_files, read_manifest
    from edgekd.cli.console import out, write_text
    from edgekd.environment import describe_machine, has_module
    from edgekd.runtime.chain import Chain
    from edgekd.runtime.cuda import compute_capability
    from edgekd.runtime.known_answer import check_known_answer
    from edgekd.runtime.target import check_machine

    machine = describe_machine()
    out.print(
        f"{machine.cpu}, {machine.n_cores} cores ({', '.join(machine.isa)}), {machine.memory_gib} GiB, {machine.os}"
    )
    capability = compute_capability()
    out.print(f"GPU: {machine.gpu or 'none found'}" + (f", compute capability {capability}" if capability else ""))
    table = Table("for", "needs", "here")
    for purpose, module, extra in _NEEDS:
        found = machine.versions.get(_PACKAGE_OF.get(module, module), "yes") if has_module(module) else None
        table.add_row(purpose, module, found or f"no: pip install {extra}")
    out.print(table)
    if json_file:
        write_text(json_file, machine.model_dump_json(indent=2) + "\n")
    if bundle:
        manifest = read_manifest(bundle)
        check_machine(bundle, manifest)
        check_files(bundle, manifest)
        with Chain.open(bundle) as chain:
            answered = check_known_answer(bundle, chain)
        said = "answers as it did when it was built" if answered else "opens; it has no known answer to compare with"
        out.print(f"{bundle} fits this machine, is whole, and {said}")


_NEEDS = (
    ("openvino bundles", "openvino", "openvino"),
    ("onnxruntime bundles", "onnxruntime", "onnxruntime"),
    ("tensorrt bundles", "tensorrt", "'edgekd[tensorrt]'"),
    ("tensorrt-rtx bundles", "tensorrt_rtx", "'edgekd[rtx]'"),
    ("building for ONNX Runtime and TensorRT", "onnx", "'edgekd[device]'"),
    ("export, calibrate", "torch", "'edgekd[build]'"),
    ("export of detectors", "ultralytics", "'edgekd[build]'"),
    ("distill, finetune", "faster_coco_eval", "'edgekd[train]'"),
    ("GeoJSON", "rasterio", "'edgekd[geo]'"),
)
_PACKAGE_OF = {"tensorrt_rtx": "tensorrt-rtx"}
