"""`edgekd export`: checkpoints become a model set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.errors import BackendUnavailable, InputError


def export(
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write the three graphs to")],
    detector: Annotated[str, typer.Option(help="Ultralytics .pt, a name, or for crop a model set")] = "yolo11n-nwpu",
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
    from edgekd.cli.values import parse_size
    from edgekd.environment import has_module
    from edgekd.models import weights

    if prompt not in ("box", "box+centre"):
        raise InputError(f"the prompt is {prompt!r}, expected box or box+centre; give another --prompt")
    if _is_crop(segmenter):
        _export_crop(output, detector, segmenter, detector_size, segmenter_licence, half_storage)
        return
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


def _is_crop(segmenter: str) -> bool:
    from edgekd.environment import has_module
    from edgekd.models.weights import SHIPPED_CROP

    if segmenter == SHIPPED_CROP:
        return True
    if not Path(segmenter).is_file() or not has_module("torch"):
        return False
    from edgekd.models.crop_segmenter import is_crop_checkpoint

    return is_crop_checkpoint(Path(segmenter))


def _export_crop(output: Path, detector: str, segmenter: str, size: str | None, licence: str, half: bool) -> None:
    """The detector of a model set, by default the shipped one, and a crop segmenter: a set of the kind crop."""
    from edgekd.cli.console import out
    from edgekd.cli.values import parse_size
    from edgekd.models import weights
    from edgekd.models.crop_set import copy_shipped_crop
    from edgekd.package_files import default_models

    shipped_detector = detector == weights.SHIPPED_DETECTOR
    if not shipped_detector and not Path(detector).is_dir():
        raise InputError(
            f"the detector of a crop segmenter is taken from a model set and {detector} is not the folder of one; "
            "write it with: edgekd export --detector YOUR.pt -o DIR, and give --detector DIR"
        )
    models = default_models() if shipped_detector else Path(detector)
    if segmenter == weights.SHIPPED_CROP:
        copy_shipped_crop(output, models, parse_size(size))
        out.print(f"{output}: the shipped crop segmenter beside the detector of {models}")
        return
    from edgekd.deploy.export_crop import export_crop_models
    from edgekd.files import sha256_of
    from edgekd.model_set import Source
    from edgekd.models.crop_segmenter import load_crop_segmenter

    file = Path(segmenter)
    source = Source(name=file.stem, sha256=sha256_of(file), licence=licence)
    model_set = export_crop_models(models, load_crop_segmenter(file), source, output, half)
    stage = model_set.stages["segmenter"]
    out.print(f"{output / stage.file}: segmenter, opset {stage.opset}, {stage.max_abs_difference:.1e} from PyTorch")
