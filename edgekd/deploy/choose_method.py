"""Which way of finding ranges is best: candidates of one network are tried on pictures, and a score comes out.

With labels the score is the metric itself (box AP, mean mask IoU); without, closeness to the float network's output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from edgekd.bundle import BackendName
from edgekd.deploy.build import BuildOptions
from edgekd.deploy.recipes import CalibrationTarget, Method
from edgekd.deploy.trial import trial_chain
from edgekd.graphs import StageName
from edgekd.measure.quality import DROPS, Gauge, Metric, Sample
from edgekd.model_set import read_model_set

_BACKENDS: dict[CalibrationTarget, BackendName] = {"cpu": "openvino", "tensorrt": "onnxruntime"}
_WITH_LABELS: dict[str, Metric] = {"detector": "box_ap", "encoder": "miou"}
_WITHOUT: dict[str, Metric] = {"detector": "box_match", "encoder": "mask_iou"}


def method_score(
    models: Path, target: CalibrationTarget, sample: Sample
) -> Callable[[StageName, Mapping[Method, onnx.ModelProto]], Mapping[Method, float]]:
    """Return a function that scores the candidates of a stage, larger is better.

    Args:
        models: the float model set.
        target: decides what runs the candidates.
        sample: pictures, with labels where there are some; masks are needed for the encoder's `miou`.
    """
    model_set = read_model_set(models)
    # Ranges hold for one size, so both sides are fed the full one.
    options = BuildOptions(backend=_BACKENDS[target], precision="fp32", square=True)

    def score(stage: StageName, candidates: Mapping[Method, onnx.ModelProto]) -> Mapping[Method, float]:
        labelled = sample.labels is not None and (stage == "detector" or sample.labels.has_masks)
        metric = (_WITH_LABELS if labelled else _WITHOUT)[stage]
        scores: dict[Method, float] = {}
        with trial_chain(models, model_set, {}, options) as reference:
            gauge = Gauge(reference, sample, (metric,))
            for method, graph in candidates.items():
                with trial_chain(models, model_set, {stage: graph}, replace(options, precision="int8")) as chain:
                    measured = gauge.measure(chain)[metric]
                scores[method] = -measured if metric in DROPS else measured
        return scores

    return score
