"""The folder that `edgekd export` writes: one ONNX graph per stage, and `models.json`: how to feed them.

Export and calibrate write it; build reads it. It knows no framework: the pipeline it describes is copied into the
bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.choices import Prompt
from edgekd.errors import ModelError
from edgekd.files import is_file, read_json, sha256_of
from edgekd.graphs import STAGES_OF_KIND, Kind, StageName
from edgekd.text import shown

FORMAT_VERSION = 2
"""Format 2 added `kind`; a description of format 1 has none and is read as the kind `sam`."""

FILE_NAME = "models.json"
MAX_BYTES = 4 << 20
CALIBRATION_SET = "calibration_set.json"
"""Beside the graphs of a calibrated set: which pictures its ranges come from."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TensorSpec(_Record):
    """One input or output: a string in `shape` names a dynamic axis."""

    name: str
    shape: tuple[Annotated[int, Field(ge=0, le=2**31 - 1)] | str, ...] = Field(max_length=8)
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
    smaller_sizes_px: tuple[tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]], ...] = Field(
        default=(), max_length=64
    )

    def model_post_init(self, _context: object) -> None:
        """Check what no single field can."""
        for height, width in self.smaller_sizes_px:
            if height > self.height_px or width > self.width_px:
                raise ValueError(f"the smaller size {width}x{height} exceeds {self.width_px}x{self.height_px}")
        if 0 in self.std:
            raise ValueError("a std is 0, expected another number")


Value = Annotated[float, Field(ge=0, le=255)]


class CropInput(_Record):
    """How the surroundings of a box become the input of a crop network.

    The window is the box scaled by `window_factor` about its centre; it is cut out of the picture, where it leaves the
    picture filled with `pad` (RGB, 0..255), and resized to `side_px` x `side_px`. See `edgekd.runtime.crops`.
    """

    side_px: int = Field(ge=8, le=1024)
    window_factor: float = Field(ge=1, le=4)
    pad: tuple[Value, Value, Value]


class DetectorHead(_Record):
    """How the detector's raw maps become boxes.

    `n_coefficients` is how many mask coefficients an anchor of a `yolo-seg` network carries; 0 for a plain detector.
    `name` is `obb` for turned boxes, whose graph has one more output: `angle_logits`. `angle` says what they are:
    `sigmoid` stands for an angle of (sigmoid(logit) - 1/4) pi, `radians` for the angle itself.
    """

    strides_px: tuple[Annotated[int, Field(ge=1, le=8192)], ...] = Field(min_length=1, max_length=8)
    reg_max: int = Field(ge=1, le=64)
    end2end: bool
    n_coefficients: int = Field(default=0, ge=0, le=256)
    name: Literal["detect", "obb"] = "detect"
    angle: Literal["sigmoid", "radians"] = "sigmoid"

    @property
    def is_oriented(self) -> bool:
        """Whether boxes are turned."""
        return self.name == "obb"

    def describe(self) -> str:
        """Say on one line what kind of boxes the head gives, and how."""
        boxes = f"turned boxes, angles as {self.angle}" if self.is_oriented else "upright boxes"
        masks = f", {self.n_coefficients} mask coefficients" if self.n_coefficients else ""
        suppression = "none" if self.end2end else "ProbIoU" if self.is_oriented else "IoU"
        return f"head {self.name}: {boxes}{masks}; suppression: {suppression}"


class Pipeline(_Record):
    """Everything the runtime must know beside the engines themselves.

    `encoder_input` and `prompt` describe the kind `sam`, `crop` the kind `crop`; they are None in the others.
    `trained_scale` is the scale at which the detector knows its objects, in pixels of its input per pixel of a picture:
    the side of its training input by the median longer side of its training pictures. None where nobody recorded it.
    """

    class_names: tuple[str, ...] = Field(max_length=65536)
    head: DetectorHead
    detector_input: ImageInput
    trained_scale: float | None = Field(default=None, gt=0, le=64)
    encoder_input: ImageInput | None = None
    prompt: Prompt | None = None
    crop: CropInput | None = None

    def picture_inputs(self) -> dict[StageName, ImageInput]:
        """Return the input of every stage that sees the whole picture."""
        inputs: dict[StageName, ImageInput] = {"detector": self.detector_input}
        if self.encoder_input is not None:
            inputs["encoder"] = self.encoder_input
        return inputs


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

    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    kind: Kind = "sam"
    pipeline: Pipeline
    stages: dict[StageName, OnnxStage]


def read_model_set(folder: Path) -> ModelSet:
    """Read and check `models.json` and the hashes of its graphs.

    Raises:
        ModelError: the folder or a file is missing, the description does not fit, or a graph was changed since.
    """
    model_set = _read(folder)
    for stage in model_set.stages.values():
        _check_stage(folder, stage)
    return model_set


def write_model_set(folder: Path, model_set: ModelSet) -> None:
    """Write `models.json` beside its graphs, in a folder from `edgekd.files.atomic_folder` or a scratch folder."""
    (folder / FILE_NAME).write_text(model_set.model_dump_json(indent=2) + "\n", encoding="utf-8")


def listed_files(folder: Path) -> set[str] | None:
    """Return the names of a set's files, for `edgekd.files.atomic_folder`; None when the folder is not a model set."""
    try:
        model_set = _read(folder)
    except ModelError:
        return None
    return {FILE_NAME, CALIBRATION_SET, *(stage.file for stage in model_set.stages.values())}


def _read(folder: Path) -> ModelSet:
    path = folder / FILE_NAME
    if not is_file(path):
        raise ModelError(f"{folder} holds no {FILE_NAME}; write it with: edgekd export -o {folder}")
    try:
        raw = read_json(path, MAX_BYTES)
        check_version(raw, FORMAT_VERSION)
        model_set = ModelSet.model_validate(raw)
    except UnknownFormat as error:
        raise ModelError(f"{path} has {error}; update edgekd or export again") from error
    except ValueError as error:  # pydantic's is one as well
        raise ModelError(
            f"{path} is not a model set of format {FORMAT_VERSION} ({brief(error)}); export again"
        ) from error
    fault = kind_fault(model_set.kind, model_set.pipeline, model_set.stages)
    if fault:
        raise ModelError(f"{path} {fault}; export again")
    return model_set


class UnknownFormat(Exception):
    """A description of a newer format, or of a kind that this edgekd does not know; the text says which."""


def check_version(raw: Any, newest: int) -> None:
    """Look at `format_version` and `kind` of a description before anything else of it is read.

    Raises:
        UnknownFormat: either is beyond this edgekd.
    """
    if not isinstance(raw, dict):
        return
    version, kind = raw.get("format_version"), raw.get("kind")
    if isinstance(version, int) and version > newest:
        raise UnknownFormat(f"format {version}, and this edgekd reads up to {newest}")
    if isinstance(kind, str) and kind not in STAGES_OF_KIND:
        raise UnknownFormat(f"the kind {kind[:40]!r}, and this edgekd knows {', '.join(STAGES_OF_KIND)}")


def kind_fault(kind: Kind, pipeline: Pipeline, stages: Collection[StageName]) -> str:
    """Say what a description lacks of its kind, or has beyond it; empty when it is whole."""
    expected = STAGES_OF_KIND[kind]
    missing = [name for name in expected if name not in stages]
    if missing:
        return f"has no stage {missing[0]}, expected {', '.join(expected)} for the kind {kind}"
    beyond = [name for name in stages if name not in expected]
    if beyond:
        return f"has the stage {beyond[0]}, expected {', '.join(expected)} for the kind {kind}"
    if (pipeline.encoder_input is not None) != (kind == "sam"):
        return f"{'lacks' if kind == 'sam' else 'has'} pipeline.encoder_input, which is for the kind sam"
    if (pipeline.crop is not None) != (kind == "crop"):
        return f"{'lacks' if kind == 'crop' else 'has'} pipeline.crop, which is for the kind crop"
    if (pipeline.head.n_coefficients > 0) != (kind == "yolo-seg"):
        return f"has {pipeline.head.n_coefficients} in pipeline.head.n_coefficients, which is for the kind yolo-seg"
    if pipeline.head.is_oriented and kind == "yolo-seg":
        return "has the head obb, which is for the kinds sam and crop"
    return ""


def _check_stage(folder: Path, stage: OnnxStage) -> None:
    path = folder / stage.file
    if Path(stage.file).name != stage.file or not path.is_file():
        raise ModelError(f"{folder} lacks the file {stage.file}; export again")
    if sha256_of(path) != stage.sha256:
        raise ModelError(f"{path} is not the file that {FILE_NAME} describes (its sha256 differs); export again")


def brief(error: Exception) -> str:
    """Say in a few words what is wrong with a JSON file: the first finding and where it is."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return shown(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    return shown(str(error))
