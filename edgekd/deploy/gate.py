"""The accuracy gate: a bundle is kept only when it is as accurate as its user asks, measured on the user's pictures.

float reference -> candidate -> limits hold: keep it
                                limits fail: rank blocks, return the most harmful to float until they hold, or exit 3
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from edgekd.bundle import GateResult, Manifest
from edgekd.deploy.build import build_bundle, choices_of
from edgekd.deploy.build_options import BuildOptions
from edgekd.deploy.candidates import float_graphs, trial_chain, write_variant
from edgekd.deploy.gate_limits import GateOptions
from edgekd.deploy.qdq import keep_quantized, quantized_layers, return_to_float
from edgekd.deploy.ranges import Feeds, tensor_reader
from edgekd.deploy.stage_inputs import StageInputs
from edgekd.errors import GateFailed
from edgekd.files import scratch_folder
from edgekd.graphs import StageName
from edgekd.measure.quality import DROPS, STAGES_OF, Metric, QualityCheck, stages_measured
from edgekd.model_set import ModelSet, read_model_set

Report = Callable[[str], None]
Graphs = Mapping[StageName, onnx.ModelProto]
MAX_FLOAT_SHARE = 0.5
"""With more than this share of a network's INT8 layers back in float there is little left to gain: the gate fails."""

_RANKING_PICTURES = 3


def apply_gate(
    models: Path, destination: Path, options: BuildOptions, wanted: GateOptions, report: Report = lambda line: None
) -> Manifest:
    """Build a bundle that passes the gate; the result of the gate is in its manifest.

    Args:
        models: what `edgekd calibrate` wrote; it is not changed.
        destination: the bundle to make or replace; nothing is left there when the gate fails.
        options: as for `build_bundle`. A graph for TensorRT is measured in ONNX Runtime, which computes the same Q/DQ
            arithmetic, and the manifest's notes say so.
        wanted: limits, pictures, fallback.
        report: called with one line for each step.

    Raises:
        GateFailed: a limit does not hold, and returning up to half of a network to float does not cure it.
        InputError: a metric needs labels that are not there.
        EdgekdError: as for `build_bundle`.
    """
    model_set = read_model_set(models)
    reference = replace(options, precision="fp32")
    with trial_chain(models, model_set, float_graphs(models, model_set), reference) as chain:
        quality = QualityCheck(chain, wanted.sample, tuple(wanted.gate.limits))
        search = _Search(models, model_set, options, wanted, quality, report)
        graphs, result = search.run()
    note = f"gate: measured with {options.facts.stand_in} on {result.n_images} pictures"
    with scratch_folder("gate") as room:
        write_variant(models, model_set, graphs, room)
        return build_bundle(room, destination, replace(search.options, gate=result, notes=(note,)), report)


class _Search:
    """Looks for the graphs that pass: all INT8 first, then with blocks returned to float."""

    def __init__(
        self,
        models: Path,
        model_set: ModelSet,
        options: BuildOptions,
        wanted: GateOptions,
        quality: QualityCheck,
        report: Report,
    ) -> None:
        self._models, self._model_set, self._wanted = models, model_set, wanted
        self.options = options
        self._quality, self._report = quality, report

    def run(self) -> tuple[Graphs, GateResult]:
        """Return the replaced graphs and what was measured with them; `options` then name the arithmetic of each.

        Raises:
            GateFailed: see `apply_gate`.
        """
        measured, failing = self._measure({})
        graphs: dict[StageName, onnx.ModelProto] = {}
        float_layers: list[str] = []
        for stage in stages_measured(failing):
            if not failing or not self._wanted.fallback or not self._is_int8(stage):
                continue
            graphs[stage], returned, measured = self._repair(stage, graphs)
            float_layers += returned
            failing = self._wanted.gate.failing(measured)
        if failing:
            raise GateFailed(self._sentence(measured, failing))
        limits = {str(metric): limit for metric, limit in self._wanted.gate.limits.items()}
        n_images = len(self._wanted.sample.pictures)
        return graphs, GateResult(
            passed=True, measured=measured, limits=limits, n_images=n_images, float_layers=tuple(float_layers)
        )

    def _is_int8(self, stage: StageName) -> bool:
        chosen = self.options.choices.get(stage)
        described = self._model_set.stages.get(stage)
        return described is not None and described.quantized and (chosen is None or chosen.precision == "int8")

    def _repair(self, stage: StageName, others: Graphs) -> tuple[onnx.ModelProto, list[str], dict[str, float]]:
        """Return as few blocks to float as cure this stage's metrics, the most harmful first."""
        quantized = onnx.load(self._models / self._model_set.stages[stage].file)
        n_layers = len(quantized_layers(quantized))
        self._report(f"{stage}: looking for the blocks that suffer most from INT8")
        blocks = affordable_blocks(rank_blocks(quantized, self._feeds(stage), self._report), n_layers)
        tries: dict[int, tuple[onnx.ModelProto, list[str], dict[str, float]]] = {}

        def passes(n_blocks: int) -> bool:
            layers = [layer for block in blocks[:n_blocks] for layer in block.layers]
            graph = return_to_float(quantized, layers)
            measured, failing = self._measure({**others, stage: graph})
            tries[n_blocks] = graph, layers, measured
            self._report(f"{stage}: {len(layers)} of {n_layers} INT8 layers in float: {_values(measured)}")
            return not any(stage in STAGES_OF[metric] for metric in failing)

        return tries[first_passing(len(blocks), passes) or len(blocks)]

    def _feeds(self, stage: StageName) -> list[Feeds]:
        fed = StageInputs(self._models, self._model_set, stage, self._wanted.sample.pictures)
        return list(fed.feeds(_RANKING_PICTURES))

    def _measure(self, graphs: Graphs) -> tuple[dict[str, float], list[Metric]]:
        with trial_chain(self._models, self._model_set, graphs, self.options) as candidate:
            measured = self._quality.measure(candidate)
            if self.options.facts.stand_in == self.options.backend:
                # The bundle has the arithmetic that was measured, not one that a second measurement would choose.
                self.options = replace(self.options, choices=choices_of(candidate.manifest))
        return measured, self._wanted.gate.failing(measured)

    def _sentence(self, measured: Mapping[str, float], failing: Sequence[Metric]) -> str:
        parts = [_limit_text(metric, measured[metric], self._wanted.gate.limits[metric]) for metric in failing]
        quantized = any(stage.quantized for stage in self._model_set.stages.values())
        cure = "allow `fallback`" if quantized and not self._wanted.fallback else "build it with `precision` fp32"
        tried = " with half of the INT8 layers back in float" if quantized and self._wanted.fallback else ""
        return f"the gate failed{tried}: {', '.join(parts)}; {cure}, calibrate on other pictures, or relax the `gate`"


def first_passing(n: int, passes: Callable[[int], bool]) -> int | None:
    """Find the smallest number from 1 to n that passes, if more never does worse: doubled, then halved back.

    Returns:
        The number, None when not even n passes.
    """
    low, high = 0, 1
    while not passes(high):
        if high == n:
            return None
        low, high = high, min(2 * high, n)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high


def affordable_blocks(blocks: Sequence[Block], n_layers: int) -> list[Block]:
    """Keep the first blocks that together hold at most `MAX_FLOAT_SHARE` of the layers; one at least."""
    kept: list[Block] = []
    for block in blocks:
        n_float = sum(len(other.layers) for other in kept) + len(block.layers)
        if kept and n_float > MAX_FLOAT_SHARE * n_layers:
            break
        kept.append(block)
    return kept


def _values(measured: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in measured.items())


def _limit_text(metric: Metric, value: float, limit: float) -> str:
    if metric in DROPS:
        return f"{metric} dropped {value:.2f} points, at most {limit:g} allowed"
    return f"{metric} is {value:.4f}, at least {limit:g} asked for"


BLOCK_DEPTH = 4
"""Parts of a layer's dotted name that make its block: `backbone.stages_1.blocks.0`, `model.model.6.m`."""


@dataclass(frozen=True)
class Block:
    """Some layers of one module, and what quantizing them alone does to the outputs.

    Attributes:
        name: the common part of the layers' names.
        layers: names of the weighted nodes.
        noise: power of the difference to the float outputs over the power of those, the largest of all outputs.
    """

    name: str
    layers: tuple[str, ...]
    noise: float


def blocks_of(layers: Iterable[str]) -> dict[str, list[str]]:
    """Group layers by the first `BLOCK_DEPTH` parts of their names, in order."""
    blocks: dict[str, list[str]] = {}
    for layer in layers:
        blocks.setdefault(".".join(layer.split(".")[:BLOCK_DEPTH]), []).append(layer)
    return blocks


def rank_blocks(
    quantized: onnx.ModelProto, feeds: Sequence[Feeds], report: Callable[[str], None] = lambda line: None
) -> list[Block]:
    """Measure every block alone.

    Args:
        quantized: Q/DQ graph with fixed sizes.
        feeds: one dictionary of inputs per picture; a handful is enough for an order.
        report: called with one line per block.

    Returns:
        The blocks, most harmful first.
    """
    expected = _outputs(keep_quantized(quantized, []), feeds)
    ranked = []
    for name, layers in blocks_of(quantized_layers(quantized)).items():
        found = _outputs(keep_quantized(quantized, layers), feeds)
        noise = max(_noise(found[key], expected[key]) for key in expected)
        report(f"{name}: noise {noise:.2e} from {len(layers)} layers")
        ranked.append(Block(name, tuple(layers), noise))
    return sorted(ranked, key=lambda block: -block.noise)


def _outputs(model: onnx.ModelProto, feeds: Sequence[Feeds]) -> dict[str, list[Any]]:
    names = [value.name for value in model.graph.output]
    run = tensor_reader(model, names)
    rows = [run(picture) for picture in feeds]
    return {name: [row[name] for row in rows] for name in names}


def _noise(found: Sequence[Any], expected: Sequence[Any]) -> float:
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(found, expected, strict=True)]
    power = sum(float(np.square(b).sum()) for _, b in pairs)
    return sum(float(np.square(a - b).sum()) for a, b in pairs) / max(power, 1e-30)
