"""Graphs are tried before they are kept: a model set with some graphs replaced becomes a temporary bundle and chain.

Candidates run on a CPU: OpenVINO for graphs that it will run in the end, ONNX Runtime for those made for TensorRT,
where it computes the same Q/DQ arithmetic in floats. Which way of finding ranges is best is decided by a score: with
labels it is the metric itself (box AP, mean mask IoU); without, closeness to the float network's output.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import onnx

from edgekd.backends import TRIED_WITH, CalibrationTarget
from edgekd.choices import RangeMethod
from edgekd.deploy.build import build_bundle
from edgekd.deploy.build_options import BuildOptions, Choice
from edgekd.deploy.onnx_edit import shapes_of_values
from edgekd.deploy.qdq import calibration_facts, keep_quantized, quantized_layers
from edgekd.files import scratch_folder, sha256_of
from edgekd.graphs import StageName
from edgekd.measure.quality import DROPS, Metric, QualityCheck, Sample
from edgekd.model_set import ModelSet, read_model_set, write_model_set
from edgekd.runtime.chain import Chain

_WITH_LABELS: dict[str, Metric] = {"detector": "box_ap", "encoder": "miou", "segmenter": "miou"}
_WITHOUT: dict[str, Metric] = {"detector": "box_match", "encoder": "mask_iou", "segmenter": "mask_iou"}


def write_variant(
    models: Path, model_set: ModelSet, graphs: Mapping[StageName, onnx.ModelProto], folder: Path
) -> ModelSet:
    """Write a model set into an empty folder with some graphs replaced; quantized or not is read off them."""
    stages = dict(model_set.stages)
    for name, stage in model_set.stages.items():
        path = folder / stage.file
        if name not in graphs:
            shutil.copyfile(models / stage.file, path)
            continue
        onnx.save(graphs[name], path)
        int8 = bool(quantized_layers(graphs[name]))
        facts = calibration_facts(graphs[name]) if int8 else None
        update = {"sha256": sha256_of(path), "quantized": int8, "calibration": facts}
        stages[name] = stage.with_shapes(shapes_of_values(graphs[name])).model_copy(update=update)
    variant = model_set.model_copy(update={"stages": stages})
    write_model_set(folder, variant)
    return variant


def float_graphs(models: Path, model_set: ModelSet) -> dict[StageName, onnx.ModelProto]:
    """Return the float graphs that the quantized stages of a set were made from."""
    quantized = {name: stage for name, stage in model_set.stages.items() if stage.quantized}
    return {name: keep_quantized(onnx.load(models / stage.file), []) for name, stage in quantized.items()}


@contextmanager
def trial_chain(
    models: Path, model_set: ModelSet, graphs: Mapping[StageName, onnx.ModelProto], options: BuildOptions
) -> Iterator[Chain]:
    """Build a temporary bundle and open it.

    Args:
        models: the folder of the set.
        model_set: its description.
        graphs: stages to replace.
        options: as for the bundle itself; the backend is replaced by its stand-in.
    """
    backend = options.facts.stand_in
    with scratch_folder("trial") as room:
        variant, bundle = room / "models", room / "bundle"
        variant.mkdir()
        write_variant(models, model_set, graphs, variant)
        build_bundle(
            variant,
            bundle,
            replace(options, backend=backend, box_buckets=(), compute_capability=None, known_answer=False),
        )
        with Chain.open(bundle) as chain:
            yield chain


def method_score(
    models: Path, target: CalibrationTarget, sample: Sample
) -> Callable[[StageName, Mapping[RangeMethod, onnx.ModelProto]], Mapping[RangeMethod, float]]:
    """Return a function that scores the candidates of a stage, larger is better.

    Args:
        models: the float model set.
        target: decides what runs the candidates.
        sample: pictures, with labels where there are some; masks are needed for the encoder's `miou`.
    """
    model_set = read_model_set(models)
    # Ranges hold for one size, so both sides are fed the full one.
    options = BuildOptions(backend=TRIED_WITH[target], precision="fp32", square=True)
    floats = {name: Choice("fp32", "the other networks of a trial") for name in model_set.stages}

    def score(stage: StageName, candidates: Mapping[RangeMethod, onnx.ModelProto]) -> Mapping[RangeMethod, float]:
        labelled = sample.labels is not None and (stage == "detector" or sample.labels.has_masks)
        metric = (_WITH_LABELS if labelled else _WITHOUT)[stage]
        scores: dict[RangeMethod, float] = {}
        with trial_chain(models, model_set, {}, options) as reference:
            quality = QualityCheck(reference, sample, (metric,))
            int8 = replace(options, precision="int8", choices=floats | {stage: Choice("int8", "a trial")})
            for method, graph in candidates.items():
                with trial_chain(models, model_set, {stage: graph}, int8) as chain:
                    measured = quality.measure(chain)[metric]
                scores[method] = -measured if metric in DROPS else measured
        return scores

    return score
