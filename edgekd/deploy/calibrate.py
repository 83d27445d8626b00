"""Calibration as a user asks for it: pictures, and labels where there are some, choose how ranges are found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekd.choices import Part
from edgekd.data.labels import LabelledSet
from edgekd.deploy.candidates import method_score
from edgekd.deploy.quantize import CalibrateOptions, calibrate_models
from edgekd.graphs import StageName
from edgekd.measure.quality import Sample
from edgekd.model_set import ModelSet, read_model_set
from edgekd.runtime.sources import pictures_in

TRIAL_PICTURES = 32


def stages_of(models: str | Path, part: Part | None = None) -> tuple[StageName, ...]:
    """Return the stages of a set that are calibrated, all or of one part; the decoder of a `sam` set stays float.

    Raises:
        ModelError: the set is damaged.
    """
    masks: StageName = "segmenter" if read_model_set(Path(models)).kind == "crop" else "encoder"
    stages: dict[Part | None, tuple[StageName, ...]] = {None: ("detector", masks), "segmenter": (masks,)}
    return stages.get(part, ("detector",))


def calibrate(
    models: str | Path,
    images: str | Path,
    destination: str | Path,
    options: CalibrateOptions,
    labels: LabelledSet | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> ModelSet:
    """Turn a float model set into one with INT8 Q/DQ pairs.

    Args:
        models: what `edgekd.export_models` wrote.
        images: folder of pictures like those that the device will see.
        destination: the folder to make or replace; nothing is left there on failure.
        options: target, method, stages, recipes.
        labels: where the method `auto` measures accuracy; None compares with the float networks on the first
            `TRIAL_PICTURES` of `images`.
        report: called with one line per step.

    Raises:
        ModelError: the set is damaged or quantized already.
        DataError: the pictures cannot be used, or are not those of the set that `options` name.
        InputError: a recipe cannot be used, or the folder cannot be written.
        BackendUnavailable: onnx or onnxruntime is not installed.
    """
    models, images = Path(models), Path(images)
    score = None
    if options.method == "auto" and images.is_dir():
        sample = Sample.of_labels(labels) if labels else Sample(tuple(pictures_in(images)[:TRIAL_PICTURES]))
        score = method_score(models, options.target, sample)
    return calibrate_models(models, images, Path(destination), options, score, report)
