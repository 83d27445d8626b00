"""`edgekd export`: checkpoints become a model set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.choices import Prompt


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write the graphs to")],
    detector: Annotated[str, typer.Option(help="Ultralytics .pt, a name, or for crop a model set")] = "yolo11n-nwpu",
    segmenter: Annotated[str, typer.Option(help="tinysam.pth, mobile_sam.pt, best.pt, or a name")] = "tinysam-nwpu",
    detector_px: Annotated[
        str | None, typer.Option("--detector-size", help="640 or WIDTHxHEIGHT, multiples of 32")
    ] = None,
    segmenter_px: Annotated[
        str | None, typer.Option("--segmenter-size", help="1024, 512 or WIDTHxHEIGHT, multiples of 32")
    ] = None,
    prompt: Annotated[Prompt, typer.Option(help="what the decoder is told of a box")] = "box",
    detector_licence: Annotated[str, typer.Option(help="recorded with the weights")] = "AGPL-3.0 (Ultralytics)",
    segmenter_licence: Annotated[str, typer.Option(help="recorded with the weights")] = "not stated",
    half_storage: Annotated[bool, typer.Option("--half-storage", help="store weights as fp16: half the file")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the description of the set here too")] = None,
) -> None:
    """Export a detector and a segmenter to ONNX, each compared with PyTorch (no more than rounding apart)."""
    from edgekd.cli.console import log, out, write_json
    from edgekd.cli.values import parse_size
    from edgekd.deploy.export_models import ModelChoice, export_models

    choice = ModelChoice(
        detector=detector,
        segmenter=segmenter,
        detector_px=parse_size(detector_px),
        segmenter_px=parse_size(segmenter_px),
        prompt=prompt,
        detector_licence=detector_licence,
        segmenter_licence=segmenter_licence,
        half_storage=half_storage,
    )
    with log.status("exporting"):
        model_set = export_models(output, choice, log.print)
    for name, stage in model_set.stages.items():
        distance = "" if stage.max_abs_difference is None else f", {stage.max_abs_difference:.1e} from PyTorch"
        out.print(f"{output / stage.file}: {name}, opset {stage.opset}{distance}")
    write_json(json_file, model_set)
