"""`edgekd calibrate`: a float model set and pictures in, the same set with Q/DQ pairs out.

pictures -> histograms -> ranges, one candidate per method -> tied -> pairs -> the best candidate, hashes inside

Labels, where there are some, say which candidate is best; otherwise each is compared with the float networks.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from edgekd.backends import CalibrationTarget
from edgekd.choices import Part, RangeMethod, RangeMethodWish, WeightBits
from edgekd.data.labels import LabelledSet
from edgekd.deploy import calibration_set
from edgekd.deploy.calibration_recipes import CalibrationRecipe, recipes_for
from edgekd.deploy.calibration_set import CalibrationSet
from edgekd.deploy.candidates import method_score
from edgekd.deploy.onnx_edit import fix_shapes, shapes_of_values
from edgekd.deploy.qdq import Placement, calibration_facts, insert_pairs, place_pairs, tie_ranges, write_facts
from edgekd.deploy.ranges import collect_histograms, find_overflows, fp32_pins, ranges_by
from edgekd.deploy.stage_inputs import StageInputs
from edgekd.environment import describe_machine, saturates_int8
from edgekd.errors import ModelError
from edgekd.files import atomic_folder, sha256_of
from edgekd.graphs import StageName
from edgekd.measure.quality import Sample
from edgekd.model_set import (
    CALIBRATION_SET,
    ImageInput,
    ModelSet,
    OnnxStage,
    listed_files,
    read_model_set,
    write_model_set,
)
from edgekd.runtime.sources import pictures_in

Report = Callable[[str], None]
Score = Callable[[StageName, Mapping[RangeMethod, onnx.ModelProto]], Mapping[RangeMethod, float]]
"""Measures candidates of one stage: larger is better."""

TRIAL_PICTURES = 32
OVERFLOW_PICTURES = 8
_SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class CalibrateOptions:
    """What `edgekd calibrate` decides.

    Attributes:
        target: `tensorrt` or `cpu`.
        method: how ranges are found; `auto` tries the recipe's methods and keeps the best.
        stages: which networks become INT8.
        n_pictures: how many of the folder are used.
        recipes: the user's own recipe files.
        set_file: a calibration set that the folder must match; None makes one.
        weight_bits: of INT8 weights; None is what the recipe says, and 7 for a CPU where this processor saturates
            sums of 8-bit products (`edgekd.environment.saturates_int8`).
    """

    target: CalibrationTarget
    method: RangeMethodWish = "auto"
    stages: tuple[StageName, ...] = ("detector", "encoder")
    n_pictures: int = 128
    recipes: tuple[Path, ...] = ()
    set_file: Path | None = None
    weight_bits: WeightBits | None = None


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


def calibrate_models(
    models: Path,
    images: Path,
    destination: Path,
    options: CalibrateOptions,
    score: Score | None = None,
    report: Report = lambda line: None,
) -> ModelSet:
    """Quantize the networks of a model set.

    Args:
        models: what `edgekd export` wrote.
        images: folder of calibration pictures, like those that the device will see.
        destination: the folder to make or replace; nothing is left there on failure.
        options: target, method, recipes.
        score: measures candidates, for method `auto`.
        report: called with one line for each step.

    Raises:
        ModelError: the set is damaged or quantized already.
        DataError: the pictures cannot be used, or are not those of the set.
        InputError: a recipe cannot be used.
    """
    model_set = read_model_set(models)
    _check_float(models, model_set, options.stages)
    recipes = _with_weight_bits(recipes_for(options.target, options.recipes), options, report)
    inputs = model_set.pipeline.picture_inputs()
    preprocessing = {stage: inputs[stage] for stage in options.stages if stage in inputs}
    pictures = _pictures(images, options, preprocessing)
    stages = dict(model_set.stages)
    with atomic_folder(destination, listed_files) as folder:
        for name, stage in model_set.stages.items():
            if name not in options.stages:
                shutil.copyfile(models / stage.file, folder / stage.file)
                continue
            report(f"{name}: measuring ranges on {len(pictures.pictures)} pictures")
            paths = [images / picture.id for picture in pictures.pictures]
            fed = StageInputs(models, model_set, name, paths)
            calibrated = StageCalibration(models / stage.file, recipes[name], pictures, fed)
            for entry in calibrated.overflows:
                fate = "stays FP32 in an FP16 engine" if entry.overflows else "is near FP16's limit of 65504"
                report(f"{name}: {entry.tensor} ({entry.op_type}) reaches {entry.largest:.3g} and {fate}")
            graph = _best(name, calibrated, options, score, report)
            stages[name] = _write(folder / stage.file, graph, stage)
        (folder / CALIBRATION_SET).write_text(pictures.model_dump_json(indent=1) + "\n", encoding="utf-8")
        quantized = model_set.model_copy(update={"stages": stages})
        write_model_set(folder, quantized)
    return quantized


def name_layers(model: onnx.ModelProto, fixed: onnx.ModelProto) -> None:
    """Give the weighted nodes of `fixed`, in place, the names that their layers have in PyTorch.

    That is the name of the weight or the bias, where simplification left one; else it is in the metadata that the
    exporter wrote into `model`.
    """
    scopes = {node.name: _scope(node) for node in model.graph.node}
    constants = {tensor.name for tensor in fixed.graph.initializer}
    taken: set[str] = set()
    for node in fixed.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or node.input[1] not in constants:
            continue
        own = (n.rpartition(".")[0] for n in node.input[1:] if n.endswith((".weight", ".bias")))
        name = next(own, None) or scopes.get(node.name) or node.name
        node.name = name if name not in taken else f"{name}.{node.name}"
        taken.add(node.name)


class StageCalibration:
    """One network's float graph, its placement and its histograms."""

    def __init__(self, path: Path, recipe: CalibrationRecipe, pictures: CalibrationSet, fed: StageInputs) -> None:
        model = onnx.load(path)
        self.graph = fix_shapes(model, {fed.name: fed.shape})
        name_layers(model, self.graph)
        self.recipe, self._pictures, self._source_sha256 = recipe, pictures, sha256_of(path)
        self.placement: Placement = place_pairs(self.graph, recipe)
        if not self.placement.layers:
            raise ModelError(f"the recipe {recipe.name} quantizes no layer of {path.name}; correct its float_layers")
        self._histograms: Any = collect_histograms(self.graph, self.placement.activations, fed.feeds())
        self.overflows = find_overflows(self.graph, fed.feeds(OVERFLOW_PICTURES))

    def candidate(self, method: RangeMethod) -> onnx.ModelProto:
        """Return the Q/DQ graph with ranges by `method`, its origin in its metadata."""
        ranges = tie_ranges(ranges_by(self._histograms, method, self.recipe), self.placement.groups)
        graph = insert_pairs(self.graph, self.placement, ranges, self.recipe)
        write_facts(graph, self._facts(method))
        return graph

    def _facts(self, method: RangeMethod) -> dict[str, str]:
        """Return what the graph's metadata and the manifest say about its calibration."""
        return {
            "target": self.recipe.target,
            "method": method,
            "recipe": self.recipe.name,
            "weight_bits": str(self.recipe.weight_bits),
            "recipe_sha256": hashlib.sha256(self.recipe.model_dump_json().encode()).hexdigest(),
            "set": self._pictures.name,
            "set_sha256": self._pictures.sha256(),
            "n_pictures": str(len(self._pictures.pictures)),
            "float_model_sha256": self._source_sha256,
            "fp16_overflow": " ".join(fp32_pins(self.overflows)),
        }


def _check_float(models: Path, model_set: ModelSet, stages: tuple[StageName, ...]) -> None:
    done = [name for name in stages if model_set.stages[name].quantized]
    if done:
        raise ModelError(f"the {done[0]} in {models} is quantized already; calibrate what edgekd export wrote")


def _with_weight_bits(
    recipes: Mapping[StageName, CalibrationRecipe], options: CalibrateOptions, report: Report
) -> Mapping[StageName, CalibrationRecipe]:
    n_bits = options.weight_bits
    if n_bits is None and options.target == "cpu" and saturates_int8(describe_machine().isa):
        report(
            "weights have 7 bits: this processor adds pairs of 8-bit products in 16 bits, where 8-bit weights saturate"
        )
        n_bits = 7
    if n_bits is None:
        return recipes
    return {stage: recipe.model_copy(update={"weight_bits": n_bits}) for stage, recipe in recipes.items()}


def _pictures(images: Path, options: CalibrateOptions, preprocessing: dict[StageName, ImageInput]) -> CalibrationSet:
    if options.set_file:
        return calibration_set.check_set(calibration_set.read_set(options.set_file), images, preprocessing)
    return calibration_set.make_set(images, options.n_pictures, preprocessing)


def _best(
    name: StageName, stage: StageCalibration, options: CalibrateOptions, score: Score | None, report: Report
) -> onnx.ModelProto:
    methods = stage.recipe.methods if options.method == "auto" else (options.method,)
    if len(methods) == 1 or score is None:
        return stage.candidate(methods[0])
    candidates = {method: stage.candidate(method) for method in methods}
    scores = score(name, candidates)
    best = max(methods, key=lambda method: scores[method])
    report(f"{name}: {', '.join(f'{method} {scores[method]:.4f}' for method in methods)}; {best} kept")
    return candidates[best]


def _write(path: Path, graph: onnx.ModelProto, stage: OnnxStage) -> OnnxStage:
    onnx.save(graph, path)
    update = {"sha256": sha256_of(path), "quantized": True, "calibration": calibration_facts(graph)}
    known = {spec.name: spec.shape for spec in (*stage.inputs, *stage.outputs)}
    found = shapes_of_values(graph)
    # Simplification gives an open axis a name of its own.
    shapes = {
        name: tuple(
            size if isinstance(size, int) and size else old for size, old in zip(found[name], shape, strict=True)
        )
        for name, shape in known.items()
    }
    return stage.with_shapes(shapes).model_copy(update=update)


def _scope(node: onnx.NodeProto) -> str:
    """The innermost module of a node: the exporter writes the list of enclosing modules, the operator last."""
    text = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    names = [part.strip(" '\"") for part in text.strip("[]").split(",")]
    return names[-2] if len(names) > 1 else ""
