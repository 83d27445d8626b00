"""What INT8 costs in accuracy and gains in speed, a network, target and way of finding ranges at a time.

    python benchmarks/bench_int8.py accuracy models/ detector --images calibration/ --data labels.json --out result.json
    python benchmarks/bench_int8.py speed models/ calibrated/ --out result.json

`accuracy` quantizes one network of a float model set by every method for both targets and measures the loss against the
float network on labels: the CPU's graphs in OpenVINO, TensorRT's in ONNX Runtime, which computes the same arithmetic.
`speed` runs fp32, bf16 and INT8 in turns in OpenVINO and reports the fastest of each; it refuses when the INT8 outputs
are far from float.
"""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
import typer
from onnx import helper, numpy_helper

from edgekd.bundle import BackendName, Precision
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.calibration_set import feeds_of, make_set
from edgekd.deploy.qdq import quantized_layers, write_facts
from edgekd.deploy.quantize import StageCalibration
from edgekd.deploy.recipes import Recipe, recipes_for
from edgekd.deploy.trial import trial_chain
from edgekd.environment import describe_machine
from edgekd.measure.datasets import LabelledSet, read_labelled_set
from edgekd.measure.gauge import Gauge, Metric, Sample
from edgekd.model_set import StageName, read_model_set
from edgekd.runtime.engines import open_engine

app = typer.Typer(add_completion=False)
METRICS: dict[str, tuple[Metric, ...]] = {"detector": ("box_ap",), "encoder": ("miou", "mask_iou")}
BACKENDS: dict[str, BackendName] = {"cpu": "openvino", "tensorrt": "onnxruntime"}
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
    target: Annotated[list[str] | None, typer.Option()] = None,
    nncf: Annotated[bool, typer.Option(help="also what NNCF makes of the graph by its own rules")] = False,
) -> None:
    labels = read_labelled_set(data, data_images)
    if only_names:
        labels = labels.only(json.loads(only_names.read_text())[part])
    labels = LabelledSet(labels.source, labels.class_names, labels.pictures[:limit])
    model_set = read_model_set(models)
    spec = {"detector": model_set.pipeline.detector_input, "encoder": model_set.pipeline.encoder_input}[stage]
    pictures = make_set(images, count, {stage: spec})
    settings = {
        "source": model_set.stages[stage].source.model_dump(),
        "input_px": [spec.height_px, spec.width_px],
        "data": f"{data.parent.name}/{data.name}",
        "n_images": len(labels.pictures),
        "n_calibration_pictures": len(pictures.pictures),
        "calibration_set_sha256": pictures.sha256(),
        "against_float": "box_ap, miou: points lost (negative: gained); mask_iou: mean IoU with the float masks",
    }
    rows: list[dict[str, Any]] = []
    for name in target or ["cpu", "tensorrt"]:
        recipe = recipes_for(name)[stage]  # type: ignore[arg-type]
        calibrated = StageCalibration(stage, models / model_set.stages[stage].file, recipe, pictures, images)
        backend = BACKENDS[name]
        with trial_chain(models, model_set, {}, BuildOptions(backend, "fp32", square=True)) as reference:
            gauge = Gauge(reference, Sample.of_labels(labels), METRICS[stage])
            graphs = {method: calibrated.candidate(method) for method in recipe.methods}
            if name == "cpu" and nncf:
                tail = float_part(calibrated.graph, quantized_layers(graphs[recipe.methods[0]]), recipe)
                for method, keep in (("nncf", set()), ("nncf, the recipe's float layers", tail)):
                    graphs[method] = nncf_graph(calibrated.graph, feeds_of(pictures, images, stage), keep)
            for method, graph in graphs.items():
                with trial_chain(
                    models, model_set, {stage: graph}, BuildOptions(backend, "int8", square=True)
                ) as candidate:
                    measured = gauge.measure(candidate)
                row = {
                    "stage": stage,
                    "target": name,
                    "measured_with": backend,
                    "method": method,
                    "n_int8_layers": len(quantized_layers(graph)),
                    "float": gauge.expected,
                    "int8": {name: gauge.expected[name] - measured[name] / 100 for name in gauge.expected},
                    "against_float": measured,
                }
                rows.append(row)
                write(out, "int8 accuracy", settings, rows)
                print(json.dumps(row), flush=True)


def float_part(model: onnx.ModelProto, int8_layers: Collection[str], recipe: Recipe) -> set[str]:
    """Names of the layers that the recipe keeps float and of all that no INT8 layer waits for: the box decoding."""
    names = {node.name for node in model.graph.node if recipe.keeps_float(node.name)}
    awaited: set[str] = set()
    for node in reversed(model.graph.node):
        if node.name in int8_layers or awaited & set(node.output):
            awaited |= set(node.input)
        else:
            names.add(node.name)
    return names


def nncf_graph(model: onnx.ModelProto, feeds: Iterable[dict[str, np.ndarray]], keep: set[str]) -> onnx.ModelProto:
    """Quantize by NNCF's own rules for a CPU, on the same pictures, all but the layers `keep`."""
    import nncf
    from nncf import IgnoredScope, QuantizationPreset

    scope = IgnoredScope(names=sorted(keep))
    graph = nncf.quantize(model, nncf.Dataset(list(feeds)), preset=QuantizationPreset.MIXED, ignored_scope=scope)
    unfold_weights(graph)
    write_facts(graph, {"target": "cpu", "method": "nncf"})
    return graph


def unfold_weights(model: onnx.ModelProto) -> None:
    """Give INT8 weights back their float form and quantizer, exactly, in place: the form that edgekd builds from."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        steps = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if steps is not None and steps.dtype == np.int8:
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            scale = np.broadcast_to(constants[node.input[1]], steps.shape[axis]).copy()
            weight = steps * scale.reshape([-1 if index == axis else 1 for index in range(steps.ndim)])
            name = node.output[0]
            parts = {"weight": weight, "scale": scale, "zero": np.zeros(len(scale), np.int8)}
            model.graph.initializer.extend(
                numpy_helper.from_array(part, f"{name}_{key}") for key, part in parts.items()
            )
            pair = [f"{name}_scale", f"{name}_zero"]
            nodes.append(helper.make_node("QuantizeLinear", [f"{name}_weight", *pair], [f"{name}_steps"], axis=axis))
            node = helper.make_node("DequantizeLinear", [f"{name}_steps", *pair], [name], axis=axis)
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@app.command()
def speed(
    models: Path,
    calibrated: Path,
    out: Annotated[Path, typer.Option(help="result file")],
    threads: int = 2,
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        engines: dict[tuple[StageName, Precision], Any] = {}
        for precision, source in (("fp32", models), ("bf16", models), ("int8", calibrated)):
            folder = Path(scratch) / precision
            manifest = build_bundle(source, folder, BuildOptions("openvino", precision, square=True))  # type: ignore[arg-type]
            for stage in ("detector", "encoder"):
                engines[stage, precision] = open_engine("openvino", manifest.stages[stage], folder, threads)  # type: ignore[index]
        pipeline = read_model_set(models).pipeline
        rows = [
            row
            for stage, spec, key in (
                ("detector", pipeline.detector_input, "images"),
                ("encoder", pipeline.encoder_input, "image"),
            )
            for row in speed_rows(stage, engines, {key: smooth_picture(spec.height_px, spec.width_px)})
        ]
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
