"""The description of a `crop` model set, from a detector of any set and a segmenter's graph; needs no torch."""

from __future__ import annotations

from edgekd.errors import ModelError
from edgekd.model_set import CropInput, ModelSet, OnnxStage


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
