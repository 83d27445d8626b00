"""The folder that `edgekd export` writes: three ONNX graphs and `models.json`, which says how to feed and read them.

Export and calibrate write it; build reads it. It knows no framework: the pipeline it describes is copied into the
bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.errors import ModelError
from edgekd.graphs import STAGE_NAMES, StageName

FORMAT_VERSION = 1
FILE_NAME = "models.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TensorSpec(_Record):
    """One input or output: a string in `shape` names a dynamic axis."""

    name: str
    shape: tuple[int | str, ...]
    dtype: Literal["float32", "float16", "int32", "int64", "uint8"]
    layout: str


class ImageInput(_Record):
    """How a picture becomes a network's input.

    The picture is resized with its aspect ratio kept, placed `centre` or `top_left`, and normalised to
    (value - mean) / std per RGB channel; the rest is filled with `pad`, given in picture values (0..255).
    `smaller_sizes_px` are (height, width) within the full size that the network also takes: a picture keeps the scale
    that the full size gives it, and the smallest size that holds it is fed, so that little is spent on padding.
    """

    height_px: int = Field(gt=0, le=8192)
    width_px: int = Field(gt=0, le=8192)
    place: Literal["centre", "top_left"]
    interpolation: Literal["linear", "area"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    pad: tuple[float, float, float]
    smaller_sizes_px: tuple[tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]], ...] = ()

    def model_post_init(self, _context: object) -> None:
        """Check what no single field can."""
        for height, width in self.smaller_sizes_px:
            if height > self.height_px or width > self.width_px:
                raise ValueError(f"the smaller size {width}x{height} exceeds {self.width_px}x{self.height_px}")


class DetectorHead(_Record):
    """How the detector's raw maps become boxes."""

    strides_px: tuple[int, ...]
    reg_max: int = Field(ge=1, le=64)
    end2end: bool


class Pipeline(_Record):
    """Everything the runtime must know beside the engines themselves."""

    class_names: tuple[str, ...]
    head: DetectorHead
    detector_input: ImageInput
    encoder_input: ImageInput
    prompt: Literal["box", "box+centre"]


class Source(_Record):
    """Where weights come from: shown by `edgekd inspect`, carried into every bundle."""

    name: str
    sha256: str
    licence: str
    trained: bool = True


class OnnxStage(_Record):
    """One exported graph, and what it was made from.

    `max_abs_difference` is its largest output difference from PyTorch; `half_storage_difference` is the same after its
    weights were stored as fp16.
    """

    file: str
    sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    quantized: bool = False
    max_abs_difference: float | None = None
    half_storage_difference: float | None = None
    source: Source
    calibration: dict[str, str] | None = None

    def with_shapes(self, shapes: Mapping[str, tuple[int | str, ...]]) -> OnnxStage:
        """This stage with the shapes of its inputs and outputs, by name, as another graph has them."""
        sides = {
            side: tuple(spec.model_copy(update={"shape": shapes[spec.name]}) for spec in getattr(self, side))
            for side in ("inputs", "outputs")
        }
        return self.model_copy(update=sides)


class ModelSet(_Record):
    """The content of `models.json`."""

    format_version: int = FORMAT_VERSION
    pipeline: Pipeline
    stages: dict[StageName, OnnxStage]


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_model_set(folder: Path) -> ModelSet:
    """Read and check `models.json` and the hashes of its three graphs.

    Raises:
        ModelError: the folder or a file is missing, the description does not fit, or a graph was changed since.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        raise ModelError(f"{folder} holds no {FILE_NAME}; write it with: edgekd export -o {folder}")
    try:
        model_set = ModelSet.model_validate(json.loads(path.read_text()))
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(
            f"{path} is not a model set of format {FORMAT_VERSION} ({brief(error)}); export again"
        ) from error
    if model_set.format_version != FORMAT_VERSION:
        raise ModelError(
            f"{path} has format {model_set.format_version}, this edgekd reads {FORMAT_VERSION}; export again"
        )
    for name in STAGE_NAMES:
        _check_stage(folder, name, model_set)
    return model_set


def _check_stage(folder: Path, name: StageName, model_set: ModelSet) -> None:
    if name not in model_set.stages:
        raise ModelError(f"{folder / FILE_NAME} has no stage {name}, expected {', '.join(STAGE_NAMES)}; export again")
    stage = model_set.stages[name]
    path = folder / stage.file
    if Path(stage.file).name != stage.file or not path.is_file():
        raise ModelError(f"{folder} lacks the file {stage.file} of stage {name}; export again")
    if sha256_of(path) != stage.sha256:
        raise ModelError(f"{path} is not the file that {FILE_NAME} describes (its sha256 differs); export again")


def brief(error: Exception) -> str:
    """Say in a few words what is wrong with a JSON file: the first finding and where it is."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return str(error)
