"""`edgekd build-engine` and `edgekd rollback`: a model set becomes a bundle, and a bundle the version before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.backends import BackendName
from edgekd.choices import PrecisionWish


def build_engine(
    models: Annotated[Path, typer.Argument(help="folder written by export or calibrate")],
    output: Annotated[Path, typer.Option("-o", "--output", help="bundle to write")],
    backend: Annotated[BackendName, typer.Option(help="library that will run the engines")] = "openvino",
    precision: Annotated[PrecisionWish, typer.Option(help="auto measures on a CPU, means fp16 for TensorRT")] = "auto",
    compute_capability: Annotated[
        str | None, typer.Option("--sm", help="GPU to build for, such as 89; default: this one")
    ] = None,
    detector_px: Annotated[str | None, typer.Option("--detector-size", help="640 or WIDTHxHEIGHT")] = None,
    encoder_px: Annotated[str | None, typer.Option("--segmenter-size", help="1024, 512 or WIDTHxHEIGHT")] = None,
    square: Annotated[
        bool, typer.Option("--square", help="always feed the full size, also to wide and tall pictures")
    ] = False,
    max_boxes: Annotated[int, typer.Option(help="most boxes per picture", min=1, max=4096)] = 300,
    box_buckets: Annotated[str | None, typer.Option("--buckets", help="numbers of boxes, such as 1,4,8")] = None,
    workspace_mib: Annotated[int | None, typer.Option(help="TensorRT: scratch memory", min=1)] = None,
    optimization_level: Annotated[int | None, typer.Option("--level", help="TensorRT builder", min=0, max=5)] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="TensorRT: file of measured kernel times")] = None,
    gate: Annotated[str, typer.Option(help="INT8 limits, such as box_ap=0.5,mask_iou=0.98")] = "",
    data: Annotated[Path | None, typer.Option(help="labels of the gate: COCO .json or Ultralytics .yaml")] = None,
    data_images: Annotated[Path | None, typer.Option(help="folder of the pictures of --data")] = None,
    fallback: Annotated[bool, typer.Option(help="return blocks to float until the gate holds")] = True,
    keep: Annotated[int, typer.Option(help="versions that stay for edgekd rollback, with this one", min=1)] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the manifest here as well")] = None,
) -> None:
    """Build one engine per stage and write them with a manifest, in one step; exit 3 when a gate does not hold."""
    from edgekd.cli.console import log, out, write_json
    from edgekd.cli.values import parse_numbers, parse_size, parse_sm
    from edgekd.deploy.build_options import BuildOptions
    from edgekd.deploy.engine_check import build_accepted
    from edgekd.deploy.gate_limits import gate_on
    from edgekd.deploy.versions import kept_versions

    options = BuildOptions(
        backend=backend,
        precision=precision,
        compute_capability=parse_sm(compute_capability),
        detector_px=parse_size(detector_px),
        encoder_px=parse_size(encoder_px),
        square=square,
        max_boxes=max_boxes,
        box_buckets=parse_numbers(box_buckets),
        workspace_bytes=workspace_mib * 2**20 if workspace_mib else None,
        optimization_level=optimization_level,
        timing_cache=timing_cache,
    )
    wanted = gate_on(gate, data, data_images, fallback)
    with log.status("building engines"), kept_versions(output, keep) as destination:
        manifest = build_accepted(models, destination, options, wanted, log.print)
    out.print(f"{output}: {manifest.backend} {manifest.backend_version}, {manifest.engine_bytes / 1e6:.1f} MB")
    for note in manifest.notes:
        out.print(f"  {note}")
    write_json(json_file, manifest)


def rollback(bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine --keep")]) -> None:
    """Switch a bundle to the version before, in one step; programs that opened it go on with theirs."""
    from edgekd.cli.console import out
    from edgekd.deploy.versions import roll_back

    version = roll_back(bundle)
    out.print(f"{bundle} is {version} again; see: edgekd inspect {bundle}")
