"""`edgekd export`: checkpoints become a model set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.errors import BackendUnavailable, InputError


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write the three graphs to")],
    detector: Annotated[str, typer.Option(help="Ultralytics .pt, or a name of `edgekd weights list`")] = "yolo11n-nwpu",
    segmenter: Annotated[str, typer.Option(help="tinysam.pth, mobile_sam.pt, best.pt, or a name")] = "tinysam-nwpu",
    detector_size: Annotated[str | None, typer.Option(help="640 or WIDTHxHEIGHT, multiples of 32")] = None,
    segmenter_size: Annotated[str | None, typer.Option(help="1024, 512 or WIDTHxHEIGHT, multiples of 32")] = None,
    prompt: Annotated[str, typer.Option(help="what the decoder is told of a box: box or box+centre")] = "box",
    detector_licence: Annotated[str, typer.Option(help="recorded with the weights")] = "AGPL-3.0 (Ultralytics)",
    segmenter_licence: Annotated[str, typer.Option(help="recorded with the weights")] = "not stated",
    half_storage: Annotated[bool, typer.Option(help="store weights as fp16: half the file")] = False,
) -> None:
    """Export a detector and a segmenter to ONNX, each compared with PyTorch (at most 1e-4 apart)."""
    from edgekd.cli.console import log, out
    from edgekd.cli.sizes import parse_size
    from edgekd.environment import has_module
    from edgekd.models import weights

    if prompt not in ("box", "box+centre"):
        raise InputError(f"the prompt is {prompt!r}, expected box or box+centre; give another --prompt")
    if detector == weights.SHIPPED_DETECTOR and segmenter == weights.SHIPPED_SEGMENTER:
        model_set = weights.copy_shipped(output, parse_size(detector_size), parse_size(segmenter_size))
        out.print(f"{output}: the shipped graphs of {detector} and {segmenter}, taken as they are")
        return
    missing = [name for name in ("torch", "ultralytics", "onnx", "onnxscript", "timm") if not has_module(name)]
    if missing:
        raise BackendUnavailable(f"export needs {', '.join(missing)}; install them with: pip install 'edgekd[build]'")
    from edgekd.deploy.export import ExportOptions, export_models
    from edgekd.files import sha256_of
    from edgekd.model_set import Source
    from edgekd.models.tinysam import load_tinysam
    from edgekd.models.yolo11n import load_detector

    detector_file, segmenter_file = weights.resolve(detector), weights.resolve(segmenter)
    log.print(f"detector {detector_file}, segmenter {segmenter_file}")
    sources = {
        "detector": Source(name=detector_file.stem, sha256=sha256_of(detector_file), licence=detector_licence),
        "segmenter": Source(name=segmenter_file.stem, sha256=sha256_of(segmenter_file), licence=segmenter_licence),
    }
    options = ExportOptions(
        detector_px=parse_size(detector_size) or (640, 640),
        encoder_px=parse_size(segmenter_size) or (1024, 1024),
        prompt=prompt,
        half_storage=half_storage,
    )
    with log.status("exporting three graphs"):
        model_set = export_models(load_detector(detector_file), load_tinysam(segmenter_file), sources, output, options)
    for name, stage in model_set.stages.items():
        out.print(f"{output / stage.file}: {name}, opset {stage.opset}, {stage.max_abs_difference:.1e} from PyTorch")
