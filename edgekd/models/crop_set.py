"""Model sets of the kind `crop`: the detector of any set and a segmenter's graph, shipped or own; without torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgekd.errors import ModelError
from edgekd.files import atomic_folder, sha256_of
from edgekd.model_set import CropInput, ModelSet, OnnxStage, brief, listed_files, read_model_set, write_model_set
from edgekd.package_files import CROP_MODELS

SEGMENTER_FILE = "segmenter.json"


class CropPart(BaseModel):
    """The content of `segmenter.json`: a segmenter's graph and how its crops are cut."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: OnnxStage
    crop: CropInput


def crop_set_of(detector: ModelSet, segmenter: OnnxStage, crop: CropInput) -> ModelSet:
    """Describe a set whose detector is that of another set.

    Raises:
        ModelError: that detector is quantized, or brings its own masks.
    """
    stage = detector.stages["detector"]
    if stage.quantized or detector.kind == "yolo-seg":
        found = "is quantized" if stage.quantized else "brings its own masks"
        raise ModelError(f"the detector {found}, expected a float detector of boxes; give what edgekd export wrote")
    update = {"encoder_input": None, "prompt": None, "crop": crop}
    return ModelSet(
        kind="crop",
        pipeline=detector.pipeline.model_copy(update=update),
        stages={"detector": stage.model_copy(update={"file": "detector.onnx"}), "segmenter": segmenter},
    )


def read_crop_part(folder: Path = CROP_MODELS) -> CropPart:
    """Read a segmenter's description and check the hash of its graph.

    Raises:
        ModelError: a file is missing, damaged or was changed.
    """
    path = folder / SEGMENTER_FILE
    try:
        part = CropPart.model_validate(json.loads(path.read_text(encoding="utf-8")))
        found = sha256_of(folder / part.stage.file)
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(f"{path} cannot be used ({brief(error)}); install edgekd again") from error
    if found != part.stage.sha256:
        raise ModelError(f"{folder / part.stage.file} was changed (its sha256 differs); install edgekd again")
    return part


def copy_shipped_crop(destination: Path, models: Path, detector_px: tuple[int, int] | None = None) -> ModelSet:
    """Write a detector and the shipped crop segmenter as one model set.

    Args:
        destination: the folder to make or replace.
        models: the set whose detector is taken, such as `default_models()`.
        detector_px: (height, width) of the detector's input; None keeps that of the set.

    Raises:
        ModelError: this installation lacks the segmenter, or the set cannot be used; see `crop_set_of`.
    """
    part = read_crop_part()
    known = read_model_set(models)
    model_set = crop_set_of(known, part.stage, part.crop)
    if detector_px:
        size = {"height_px": detector_px[0], "width_px": detector_px[1]}
        pipeline = model_set.pipeline
        changed = {"detector_input": pipeline.detector_input.model_copy(update=size)}
        model_set = model_set.model_copy(update={"pipeline": pipeline.model_copy(update=changed)})
    with atomic_folder(destination, listed_files) as folder:
        shutil.copyfile(CROP_MODELS / part.stage.file, folder / part.stage.file)
        shutil.copyfile(models / known.stages["detector"].file, folder / model_set.stages["detector"].file)
        write_model_set(folder, model_set)
    return model_set
