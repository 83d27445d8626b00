"""What INT8 costs in accuracy and gains in speed, a network, target and way of finding ranges at a time.

    python benchmarks/bench_int8.py accuracy models/ detector --images calibration/ --data labels.json --out result.json
    python benchmarks/bench_int8.py saturation models/ --images calibration/ --data labels.json
    python benchmarks/bench_int8.py gated models/ bundle/ --data labels.json --out result.json
    python benchmarks/bench_int8.py speed models/ calibrated/ --out result.json

`accuracy` quantizes one network of a float model set by every method for both targets and measures the loss against the
float network on labels: the CPU's graphs in OpenVINO, TensorRT's in ONNX Runtime, which computes the same arithmetic.
`saturation` does the same for the CPU's graph of the detector with weights of 8 and of 7 bits, in both CPU libraries.
`gated` measures a bundle in which `edgekd build-engine --gate` returned layers to float the same way.
`speed` runs fp32, bf16 and INT8 in turns in OpenVINO and reports the fastest of each; it refuses when the INT8 outputs
are far from float.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import typer
from result_file import write_result

from edgekd.backends import TRIED_WITH, BackendName, CalibrationTarget, Precision
from edgekd.bundle import describe_file, read_manifest, write_manifest
from edgekd.data.labels import LabelledSet
from edgekd.data.read import read_labels
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.calibrate import StageCalibration
from edgekd.deploy.calibration_recipes import CalibrationRecipe, recipes_for
from edgekd.deploy.calibration_set import CalibrationSet, make_set
from edgekd.deploy.candidates import trial_chain
from edgekd.deploy.qdq import quantized_layers
from edgekd.deploy.stage_inputs import StageInputs
from edgekd.environment import describe_machine
from edgekd.graphs import CONTRACTS, StageName
from edgekd.measure.quality import Metric, QualityCheck, Sample
from edgekd.model_set import ModelSet, read_model_set
from edgekd.runtime.chain import Chain
from edgekd.runtime.engines import open_engine

app = typer.Typer(add_completion=False)
METRICS: dict[str, tuple[Metric, ...]] = {"detector": ("box_ap",), "encoder": ("miou", "mask_iou")}
AGAINST_FLOAT = "box_ap, miou: points lost (negative: gained); mask_iou: mean IoU with the float masks"
SPEED_RUNS = 15
MAX_SPEED_ERROR = 0.3


@app.command()
def accuracy(
    models: Path,
    stage: Literal["detector", "encoder"],
    images: Annotated[Path, typer.Option(help="calibration pictures")],
    data: Annotated[Path, typer.Option(help="labels")],
    out: Annotated[Path, typer.Option(help="result file")],
    data_images: Path | None = None,
    only_names: Annotated[Path | None, typer.Option(help="split JSON: lists of file names")] = None,
    part: str = "validation",
    count: int = 64,
    limit: int | None = None,
    target: CalibrationTarget | None = None,
    nncf: Annotated[bool, typer.Option(help="also what NNCF makes of the graph by its own rules")] = False,
) -> None:
    labels = chosen_labels(read_labels(data, data_images), only_names, part, limit)
    model_set = read_model_set(models)
    pictures, fed, settings = prepared(models, model_set, stage, images, count)
    settings |= {"data": f"{data.parent.name}/{data.name}", "n_images": len(labels.pictures)}
    targets: tuple[CalibrationTarget, ...] = (target,) if target else ("cpu", "tensorrt")
    rows: list[dict[str, Any]] = []
    for name in targets:
        recipe = recipes_for(name)[stage]
        calibrated = StageCalibration(models / model_set.stages[stage].file, recipe, pictures, fed)
        backend = TRIED_WITH[name]
        with trial_chain(
            models, model_set, {}, BuildOptions(backend=backend, precision="fp32", square=True)
        ) as reference:
            quality = QualityCheck(reference, Sample.of_labels(labels), METRICS[stage])
            for method in recipe.methods:
                graph = calibrated.candidate(method)
                layers = quantized_layers(graph)
                options = BuildOptions(backend=backend, precision="int8", square=True)
                with trial_chain(models, model_set, {stage: graph}, options) as candidate:
                    rows.append(row((stage, name, method), len(layers), quality, candidate))
                write(out, "int8 accuracy", settings, rows)
            for rule, keep in nncf_scopes(calibrated.graph, layers, recipe) if name == "cpu" and nncf else ():
                with nncf_chain(models, stage, list(fed.feeds()), keep) as (candidate, n_layers):
                    rows.append(row((stage, name, rule), n_layers, quality, candidate))
                write(out, "int8 accuracy", settings, rows)


def prepared(
    models: Path, model_set: ModelSet, stage: StageName, images: Path, count: int
) -> tuple[CalibrationSet, StageInputs, dict[str, Any]]:
    """Return the calibration set, what it feeds to the stage, and the settings for the result file."""
    spec = model_set.pipeline.picture_inputs()[stage]
    pictures = make_set(images, count, {stage: spec})
    fed = StageInputs(models, model_set, stage, [images / picture.id for picture in pictures.pictures])
    settings = {
        "source": model_set.stages[stage].source.model_dump(),
        "input_px": [spec.height_px, spec.width_px],
        "n_calibration_pictures": len(pictures.pictures),
        "calibration_set_sha256": pictures.sha256(),
        "against_float": AGAINST_FLOAT,
    }
    return pictures, fed, settings


@app.command()
def saturation(
    models: Path,
    images: Annotated[Path, typer.Option(help="calibration pictures")],
    data: Annotated[Path, typer.Option(help="labels")],
    only_names: Annotated[Path | None, typer.Option(help="split JSON: lists of file names")] = None,
    part: str = "validation",
    count: int = 64,
    limit: int | None = None,
) -> None:
    labels = chosen_labels(read_labels(data), only_names, part, limit)
    model_set = read_model_set(models)
    pictures, fed, settings = prepared(models, model_set, "detector", images, count)
    settings |= {"data": f"{data.parent.name}/{data.name}", "n_images": len(labels.pictures)}
    recipe = recipes_for("cpu")["detector"]
    backends: tuple[BackendName, ...] = ("openvino", "onnxruntime")
    rows: list[dict[str, Any]] = []
    for n_bits in (8, 7):
        bits = recipe.model_copy(update={"weight_bits": n_bits})
        calibrated = StageCalibration(models / model_set.stages["detector"].file, bits, pictures, fed)
        graph = calibrated.candidate("minmax")
        for backend in backends:
            float32 = BuildOptions(backend=backend, precision="fp32", square=True)
            int8 = BuildOptions(backend=backend, precision="int8", square=True)
            with (
                trial_chain(models, model_set, {}, float32) as reference,
                trial_chain(models, model_set, {"detector": graph}, int8) as candidate,
            ):
                quality = QualityCheck(reference, Sample.of_labels(labels), METRICS["detector"])
                lost = quality.measure(candidate)["box_ap"]
            found = {
                "backend": backend,
                "weight_bits": n_bits,
                "float": quality.expected["box_ap"],
                "points_lost": lost,
            }
            print(json.dumps(found), flush=True)
            rows.append(found)
    print(write_result("saturation", settings | {"method": "minmax", "rows": rows}))


def chosen_labels(labels: LabelledSet, only_names: Path | None, part: str, limit: int | None) -> LabelledSet:
    """The first pictures of one part of a split."""
    if only_names:
        labels = labels.only(json.loads(only_names.read_text())[part])
    return LabelledSet(labels.source, labels.class_names, labels.pictures[:limit])


@app.command()
def gated(
    models: Path,
    bundle: Path,
    data: Annotated[Path, typer.Option(help="labels")],
    out: Annotated[Path, typer.Option(help="result file")],
    data_images: Path | None = None,
    only_names: Annotated[Path | None, typer.Option(help="split JSON: lists of file names")] = None,
    part: str = "validation",
    limit: int | None = None,
) -> None:
    labels = chosen_labels(read_labels(data, data_images), only_names, part, limit)
    manifest, model_set = read_manifest(bundle), read_model_set(models)
    quantized = [name for name, built in manifest.stages.items() if built.calibration]
    calibration = manifest.stages[quantized[0]].calibration if len(quantized) == 1 else None
    if manifest.backend != "onnxruntime" or calibration is None or manifest.gate is None:
        raise SystemExit(
            f"{bundle} is not a gated ONNX Runtime bundle with one INT8 network; edgekd build-engine --gate makes one."
        )
    stage = quantized[0]
    built = manifest.stages[stage]
    settings = {
        "source": built.source.model_dump(),
        "data": f"{data.parent.name}/{data.name}",
        "n_images": len(labels.pictures),
        "n_calibration_pictures": int(calibration["n_pictures"]),
        "gate": manifest.gate.model_dump(),
        "against_float": AGAINST_FLOAT,
    }
    options = BuildOptions(backend=manifest.backend, precision="fp32", square=True)
    constants = onnx.load(bundle / built.files[0].name).graph.initializer  # weights are INT8 already
    n_layers = sum(tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1 for tensor in constants)
    method = f"{calibration['method']}, {len(manifest.gate.float_layers)} more layers float by the gate"
    with trial_chain(models, model_set, {}, options) as reference, Chain.open(bundle) as candidate:
        quality = QualityCheck(reference, Sample.of_labels(labels), METRICS[stage])
        target: CalibrationTarget = "tensorrt" if calibration["target"] == "tensorrt" else "cpu"
        rows = [row((stage, target, method), n_layers, quality, candidate)]
    write(out, "int8 accuracy", settings, rows)


def row(
    what: tuple[str, CalibrationTarget, str], n_layers: int, quality: QualityCheck, candidate: Chain
) -> dict[str, Any]:
    """Measure one INT8 chain; `what` is its stage, target and method."""
    stage, target, method = what
    measured = quality.measure(candidate)
    found = {
        "stage": stage,
        "target": target,
        "measured_with": TRIED_WITH[target],
        "method": method,
        "n_int8_layers": n_layers,
        "float": quality.expected,
        "int8": {name: quality.expected[name] - measured[name] / 100 for name in quality.expected},
        "against_float": measured,
    }
    print(json.dumps(found), flush=True)
    return found


def nncf_scopes(
    model: onnx.ModelProto, int8_layers: Collection[str], recipe: CalibrationRecipe
) -> tuple[tuple[str, set[str]], ...]:
    """What NNCF is told to keep float: nothing, and what the recipe keeps float."""
    return ("nncf", set()), ("nncf, the recipe's float layers", float_part(model, int8_layers, recipe))


def float_part(model: onnx.ModelProto, int8_layers: Collection[str], recipe: CalibrationRecipe) -> set[str]:
    """Names of the layers that the recipe keeps float and of all that no INT8 layer waits for: the box decoding."""
    names = {node.name for node in model.graph.node if recipe.keeps_float(node.name)}
    awaited: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in int8_layers or awaited & set(node.output):
            awaited |= set(node.input)
        else:
            names.add(node.name)
    return names


@contextmanager
def nncf_chain(
    models: Path, stage: StageName, feeds: list[dict[str, np.ndarray]], keep: set[str]
) -> Iterator[tuple[Chain, int]]:
    """Quantize OpenVINO's network by NNCF's own rules on the same pictures, all but the layers `keep`.

    Yields the chain and its number of INT8 layers. NNCF's ONNX graph is not taken: ONNX Runtime computes it as NNCF
    does, OpenVINO 2026.4 finds nothing with it.
    """
    import nncf
    import openvino

    with TemporaryDirectory() as folder:
        manifest = build_bundle(models, Path(folder) / "bundle", BuildOptions("openvino", "fp32", square=True))
        bundle = Path(folder) / "bundle"
        network = openvino.Core().read_model(bundle / manifest.stages[stage].files[0].name)
        quantized = nncf.quantize(
            network,
            nncf.Dataset(feeds),
            preset=nncf.QuantizationPreset.MIXED,
            ignored_scope=nncf.IgnoredScope(names=sorted(keep), validate=False),
        )
        weights = [op for op in quantized.get_ops() if op.get_type_name() == "Constant"]
        n_layers = sum(op.get_element_type() == openvino.Type.i8 for op in weights)
        files = bundle / "nncf.xml", bundle / "nncf.bin"
        openvino.save_model(quantized, files[0], compress_to_fp16=False)
        replaced = manifest.stages[stage].model_copy(update={"files": tuple(map(describe_file, files))})
        write_manifest(bundle, manifest.model_copy(update={"stages": manifest.stages | {stage: replaced}}))
        with Chain.open(bundle) as chain:
            yield chain, n_layers


@app.command()
def speed(
    models: Path,
    calibrated: Path,
    out: Annotated[Path, typer.Option(help="result file")],
    threads: int = 2,
) -> None:
    with TemporaryDirectory() as scratch:
        engines: dict[tuple[StageName, Precision], Any] = {}
        for precision, source in (("fp32", models), ("bf16", models), ("int8", calibrated)):
            folder = Path(scratch) / precision
            manifest = build_bundle(source, folder, BuildOptions("openvino", precision, square=True))  # type: ignore[arg-type]
            for stage in ("detector", "encoder"):
                engines[stage, precision] = open_engine("openvino", manifest.stages[stage], folder, threads)  # type: ignore[index]
        inputs = read_model_set(models).pipeline.picture_inputs()
        rows = []
        for stage, spec in inputs.items():
            (name,) = CONTRACTS[stage].inputs
            rows += speed_rows(stage, engines, {name: smooth_picture(spec.height_px, spec.width_px)})
    write(out, "int8 speed", {"threads": threads, "runs": SPEED_RUNS, "statistic": "minimum, runs interleaved"}, rows)


def speed_rows(stage: str, engines: dict[Any, Any], feeds: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Run the three precisions in turns; no time is given for outputs that are far from fp32's."""
    chosen = {precision: engine for (name, precision), engine in engines.items() if name == stage}
    outputs = {p: {k: v.copy() for k, v in engine.infer(feeds).items()} for p, engine in chosen.items()}
    errors = {
        p: max(
            float(np.sqrt(np.mean((found[k] - outputs["fp32"][k]) ** 2) / np.mean(outputs["fp32"][k] ** 2)))
            for k in found
        )
        for p, found in outputs.items()
    }
    times: dict[str, list[float]] = {precision: [] for precision in chosen}
    for _ in range(SPEED_RUNS):
        for precision, engine in chosen.items():
            start = time.perf_counter()
            engine.infer(feeds)
            times[precision].append((time.perf_counter() - start) * 1e3)
    rows = []
    for precision in chosen:
        row: dict[str, Any] = {"stage": stage, "precision": precision, "relative_error": round(errors[precision], 4)}
        if errors[precision] < MAX_SPEED_ERROR:
            row["min_ms"] = round(min(times[precision]), 1)
            row["speedup_over_fp32"] = round(min(times["fp32"]) / min(times[precision]), 2)
            row["speedup_over_bf16"] = round(min(times["bf16"]) / min(times[precision]), 2)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def smooth_picture(height: int, width: int) -> np.ndarray:
    """A normalised input with the statistics of a picture: (1, 3, height, width) float32."""
    generator = np.random.default_rng(0)
    coarse = generator.random((1, 3, height // 32, width // 32), np.float32).repeat(32, 2).repeat(32, 3)
    return np.ascontiguousarray(coarse * 0.8 + generator.random((1, 3, height, width), np.float32) * 0.2)


def write(out: Path, theme: str, settings: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    today = datetime.date.today().isoformat()
    result = {"theme": theme, "date": today, "machine": describe_machine().model_dump(), **settings, "rows": rows}
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    app()
