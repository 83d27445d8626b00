"""What a user names becomes a model set: shipped graphs are copied, checkpoints are exported and compared with PyTorch.

Names or paths of a detector and a segmenter go in; a folder with `models.json` comes out. The kind follows from the
segmenter. Only an export needs torch; shipped graphs are copied without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgekd.choices import Prompt
from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable, InputError
from edgekd.files import sha256_of
from edgekd.model_set import ModelSet, Source
from edgekd.models import weights
from edgekd.models.crop_set import copy_shipped_crop
from edgekd.package_files import default_models

Size = tuple[int, int]
Report = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """What is exported.

    Attributes:
        detector: Ultralytics checkpoint (.pt), or a name; for a crop segmenter the folder of a model set as well.
        segmenter: checkpoint of TinySAM, MobileSAM or a crop segmenter, or a name; a YOLO segment network as detector
            brings its own masks, and the default is then left out.
        detector_px, segmenter_px: (height, width) of the inputs, multiples of 32; None is what the models came with.
        prompt: what the decoder of TinySAM is told of a box.
        detector_licence, segmenter_licence: recorded with the weights.
        half_storage: store weights as fp16: half the file.
    """

    detector: str = weights.SHIPPED_DETECTOR
    segmenter: str = weights.SHIPPED_SEGMENTER
    detector_px: Size | None = None
    segmenter_px: Size | None = None
    prompt: Prompt = "box"
    detector_licence: str = "AGPL-3.0 (Ultralytics)"
    segmenter_licence: str = "not stated"
    half_storage: bool = False


def export_models(
    destination: str | Path, choice: ModelChoice | None = None, report: Report = lambda line: None
) -> ModelSet:
    """Write a model set for `edgekd.calibrate` and `edgekd.build_bundle`.

    Args:
        destination: the folder to make or replace.
        choice: which models; the shipped ones when None.
        report: called with one line per step.

    Raises:
        InputError: a name or path is unknown, or the folder cannot be written.
        ModelError: a checkpoint is of another kind, or a graph differs from PyTorch by more than rounding.
        BackendUnavailable: an export was asked for and torch is not installed.
    """
    destination, choice = Path(destination), choice or ModelChoice()
    if _is_crop(choice.segmenter):
        return _export_crop(destination, choice, report)
    if (choice.detector, choice.segmenter) == (weights.SHIPPED_DETECTOR, weights.SHIPPED_SEGMENTER):
        sizes = (
            "" if choice.detector_px is choice.segmenter_px is None else ", with the input sizes that were asked for"
        )
        report(f"the shipped graphs of {choice.detector} and {choice.segmenter} are copied{sizes}")
        return weights.copy_shipped(destination, choice.detector_px, choice.segmenter_px)
    _need("torch", "ultralytics", "onnx", "onnxscript", "timm")
    from edgekd.deploy.export import ExportOptions, export_networks
    from edgekd.models.tinysam import load_tinysam
    from edgekd.models.yolo11n import facts_of, load_detector

    detector = weights.resolve(choice.detector)
    network, masks = load_detector(detector, with_masks=True, oriented=True), None
    sources = {"detector": _source(detector, choice.detector_licence)}
    if facts_of(network).n_coefficients:
        if choice.segmenter != weights.SHIPPED_SEGMENTER:
            raise InputError(
                f"the detector {detector} brings its own masks and the segmenter {choice.segmenter} was given; "
                "leave out one of the two"
            )
        report(f"{detector} brings its own masks: no segmenter is exported")
    else:
        segmenter = weights.resolve(choice.segmenter)
        report(f"detector {detector}, segmenter {segmenter}")
        sources["segmenter"] = _source(segmenter, choice.segmenter_licence)
        masks = load_tinysam(segmenter)
    options = ExportOptions(
        detector_px=choice.detector_px or (640, 640),
        encoder_px=choice.segmenter_px or (1024, 1024),
        prompt=choice.prompt,
        half_storage=choice.half_storage,
    )
    return export_networks(network, masks, sources, destination, options)


def _is_crop(segmenter: str) -> bool:
    if segmenter == weights.SHIPPED_CROP:
        return True
    if not Path(segmenter).is_file() or not has_module("torch"):
        return False
    from edgekd.models.crop_segmenter import is_crop_checkpoint

    return is_crop_checkpoint(Path(segmenter))


def _export_crop(destination: Path, choice: ModelChoice, report: Report) -> ModelSet:
    """A detector (shipped, of a model set, or a checkpoint) and a crop segmenter: a set of the kind crop."""
    shipped_detector = choice.detector == weights.SHIPPED_DETECTOR
    models = default_models() if shipped_detector else Path(choice.detector)
    of_set = shipped_detector or models.is_dir()
    if choice.segmenter == weights.SHIPPED_CROP:
        if not of_set:
            raise InputError(
                f"the segmenter {choice.segmenter} knows the classes of {weights.SHIPPED_DETECTOR} and the detector "
                f"{choice.detector} was given; train your own with: edgekd finetune --model crop"
            )
        report(f"the shipped crop segmenter is put beside the detector of {models}")
        return copy_shipped_crop(destination, models, choice.detector_px)
    _need("torch", "onnx", "onnxscript")
    from edgekd.deploy.export_crop import export_crop_models, export_crop_networks
    from edgekd.models.crop_segmenter import load_crop_segmenter

    file = Path(choice.segmenter)
    network, source = load_crop_segmenter(file), _source(file, choice.segmenter_licence)
    if of_set:
        return export_crop_models(models, network, source, destination, choice.half_storage)
    _need("ultralytics")
    from edgekd.deploy.export import ExportOptions
    from edgekd.models.yolo11n import load_detector

    detector = weights.resolve(choice.detector)
    sources = {"detector": _source(detector, choice.detector_licence), "segmenter": source}
    options = ExportOptions(detector_px=choice.detector_px or (640, 640), half_storage=choice.half_storage)
    boxes = load_detector(detector, with_masks=True, oriented=True)
    return export_crop_networks(boxes, network, sources, destination, options)


def _source(file: Path, licence: str) -> Source:
    return Source(name=file.stem, sha256=sha256_of(file), licence=licence)


def _need(*modules: str) -> None:
    missing = [name for name in modules if not has_module(name)]
    if missing:
        raise BackendUnavailable(f"export needs {', '.join(missing)}; install them with: pip install 'edgekd[build]'")
