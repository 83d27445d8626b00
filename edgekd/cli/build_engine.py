"""`edgekd build-engine`: a model set becomes a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.bundle import Manifest
    from edgekd.deploy.build import BuildOptions

Backend = Literal["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]


def build_engine(
    models: Annotated[Path, typer.Argument(help="folder written by export or calibrate")],
    output: Annotated[Path, typer.Option("-o", "--output", help="bundle to write")],
    backend: Annotated[Backend, typer.Option(help="library that will run the engines")] = "openvino",
    precision: Annotated[Precision, typer.Option(help="auto measures on a CPU, means fp16 for TensorRT")] = "auto",
    sm: Annotated[str | None, typer.Option(help="GPU to build for, such as 89; default: the GPU at hand")] = None,
    detector_size: Annotated[str | None, typer.Option(help="640 or WIDTHxHEIGHT")] = None,
    segmenter_size: Annotated[str | None, typer.Option(help="1024, 512 or WIDTHxHEIGHT")] = None,
    square: Annotated[
        bool, typer.Option("--square", help="always feed the full size, also to wide and tall pictures")
    ] = False,
    max_boxes: Annotated[int, typer.Option(help="most boxes a picture", min=1, max=4096)] = 300,
    buckets: Annotated[str | None, typer.Option(help="box counts the decoder is built for, such as 1,4,8")] = None,
    workspace_mib: Annotated[int | None, typer.Option(help="TensorRT: scratch memory", min=1)] = None,
    level: Annotated[int | None, typer.Option(help="TensorRT: builder optimization level", min=0, max=5)] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="TensorRT: file of measured kernel times")] = None,
    gate: Annotated[str | None, typer.Option(help="INT8 limits, such as box_ap=0.5,mask_iou=0.98")] = None,
    data: Annotated[Path | None, typer.Option(help="labels of the gate: COCO .json or Ultralytics .yaml")] = None,
    data_images: Annotated[Path | None, typer.Option(help="folder of the pictures of --data")] = None,
    fallback: Annotated[bool, typer.Option(help="return blocks to float until the gate holds")] = True,
) -> None:
    """Build one engine per stage and write them with a manifest, in one step; exit 3 when a gate does not hold."""
    from edgekd.cli.console import log, out
    from edgekd.cli.values import parse_numbers, parse_size, parse_sm
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.deploy.engine_check import build_checked

    options = BuildOptions(
        backend=backend,
        precision=precision,
        compute_capability=parse_sm(sm),
        detector_px=parse_size(detector_size),
        encoder_px=parse_size(segmenter_size),
        square=square,
        max_boxes=max_boxes,
        box_buckets=parse_numbers(buckets),
        workspace_bytes=workspace_mib * 2**20 if workspace_mib else None,
        optimization_level=level,
        timing_cache=timing_cache,
    )
    if gate:
        manifest = _gated(models, output, options, (gate, data, data_images, fallback))
    else:
        with log.status("building engines"):
            build = build_checked if options.facts.on_gpu else build_bundle
            manifest = build(models, output, options, log.print)
    total_mb = sum(file.n_bytes for stage in manifest.stages.values() for file in stage.files) / 1e6
    out.print(f"{output}: {manifest.backend} {manifest.backend_version}, {total_mb:.1f} MB")
    for note in manifest.notes:
        out.print(f"  {note}")


def _gated(
    models: Path, output: Path, options: BuildOptions, wish: tuple[str, Path | None, Path | None, bool]
) -> Manifest:
    """Build, measure against float on labelled pictures, and return blocks to float where that is allowed."""
    from edgekd.cli.console import log
    from edgekd.data.read import read_labels
    from edgekd.deploy.gate import GateOptions, apply_gate, parse_gate
    from edgekd.measure.quality import Sample

    text, data, images, fallback = wish
    limits = parse_gate(text)
    if data is None:
        raise InputError("a gate was given and nothing to measure it on; name labelled pictures with --data")
    sample = Sample.of_labels(read_labels(data, images))
    return apply_gate(models, output, options, GateOptions(limits, sample, fallback), log.print)
