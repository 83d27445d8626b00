"""Ranges of activations on calibration pictures: a float graph and its inputs in, a histogram per tensor out.

What leaves the range of FP16 on these pictures is found on the way.

The pictures run once; min-max, percentile and entropy are read off the same histograms by ONNX Runtime's collector.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgekd.choices import RangeMethod
from edgekd.deploy.calibration_recipes import CalibrationRecipe
from edgekd.deploy.qdq import Range

N_BINS = 2048
MAX_SAMPLES = 400_000
"""Values of one tensor and picture that enter the histogram, evenly spaced; lowest and highest always do."""

ENTROPY_MERGE = 4
"""The entropy search costs the square of the number of bins; 512 resolve a 7-bit half range four times."""

Feeds = Mapping[str, NDArray[np.float32]]


def collect_histograms(model: onnx.ModelProto, tensors: Collection[str], feeds: Iterable[Feeds]) -> Any:
    """Run every picture and histogram the given tensors.

    Args:
        model: float graph with fixed sizes.
        tensors: names of activations, graph inputs included.
        feeds: one dictionary of inputs per picture.

    Returns:
        `onnxruntime.quantization.calibrate.HistogramCollector`, filled.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector

    collector = HistogramCollector("entropy", False, N_BINS, 128, 100.0, "same")
    run = tensor_reader(model, tensors)
    for picture in feeds:
        values = {name: _sampled(value) for name, value in run(picture).items()}
        with contextlib.redirect_stdout(io.StringIO()):  # the collector prints a line per call
            collector.collect(values)
    return collector


def tensor_reader(model: onnx.ModelProto, tensors: Collection[str]) -> Any:
    """Return a function that runs the graph on one picture and gives the named tensors."""
    import onnxruntime

    inputs = {value.name for value in model.graph.input}
    opened = onnx.ModelProto()
    opened.CopyFrom(model)
    outputs = {value.name for value in opened.graph.output}
    inner = sorted(set(tensors) - inputs)
    opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(opened.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def run(feeds: Feeds) -> dict[str, NDArray[np.float32]]:
        found = dict(zip(inner, session.run(inner, dict(feeds)), strict=True))
        return {**found, **{name: value for name, value in feeds.items() if name in tensors}}

    return run


def ranges_by(collector: Any, method: RangeMethod, recipe: CalibrationRecipe) -> dict[str, Range]:
    """Read the range of every tensor off its histogram.

    Args:
        collector: from `collect_histograms`.
        method: `minmax` covers everything, `percentile` the recipe's share of the values, `entropy` what loses least
            information in the sense of Kullback and Leibler.
        recipe: the percentile, and whether ranges are symmetric.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector

    histograms = collector.get_histogram_dict()
    if method == "minmax":
        return {name: (float(entry[2]), float(entry[3])) for name, entry in histograms.items()}
    finder = HistogramCollector(method, False, N_BINS, 128, recipe.percentile, "same")
    finder.histogram_dict = {
        name: _merged(entry) if method == "entropy" else entry for name, entry in histograms.items()
    }
    with contextlib.redirect_stdout(io.StringIO()):
        found = finder.compute_collection_result()
    return {name: (float(entry[0]), float(entry[1])) for name, entry in found.items()}


def _sampled(value: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = value.ravel()
    step = -(-flat.size // MAX_SAMPLES)
    return np.append(flat[::step], [flat.min(), flat.max()]).astype(np.float32)


def _merged(entry: Any) -> Any:
    """Add up neighbouring bins; those at the two ends that do not fill a whole one are few and equal in number."""
    counts, edges, *rest = entry
    cut = counts.size % (2 * ENTROPY_MERGE) // 2
    counts, edges = counts[cut : counts.size - cut], edges[cut : edges.size - cut]
    return (counts.reshape(-1, ENTROPY_MERGE).sum(1), edges[::ENTROPY_MERGE].astype(np.float32), *rest)


FLOAT16_MAX = 65504.0
_PEAK = "_peak"
NEAR_SHARE = 0.25
"""A tensor that reaches this share of the limit is reported too: another picture may go over."""


@dataclass(frozen=True)
class Overflow:
    """One tensor: its name, the node that makes it, and its largest magnitude over all pictures."""

    tensor: str
    node: str
    op_type: str
    largest: float

    @property
    def overflows(self) -> bool:
        """Whether FP16 cannot hold it."""
        return not self.largest <= FLOAT16_MAX


def find_overflows(model: onnx.ModelProto, feeds: Iterable[Feeds]) -> list[Overflow]:
    """Measure every float tensor of a graph.

    Args:
        model: float graph with fixed sizes; its nodes have names.
        feeds: one dictionary of inputs per picture.

    Returns:
        The tensors that reach a quarter of 65504, largest first; those that are not finite count as infinite.
    """
    makers = {output: node for node in model.graph.node for output in node.output}
    names = [name for name in _float_tensors(model) if name in makers]
    run = tensor_reader(_with_peaks(model, names), [name + _PEAK for name in names])
    largest = dict.fromkeys(names, 0.0)
    for picture in feeds:
        peaks = run(picture)
        for name in names:
            peak = float(peaks[name + _PEAK])
            largest[name] = max(largest[name], peak if np.isfinite(peak) else float("inf"))
    found = [Overflow(name, makers[name].name, makers[name].op_type, peak) for name, peak in largest.items()]
    return sorted((entry for entry in found if entry.largest > NEAR_SHARE * FLOAT16_MAX), key=lambda e: -e.largest)


def fp32_pins(overflows: Iterable[Overflow]) -> tuple[str, ...]:
    """Return the tensors that an FP16 build must keep in FP32."""
    return tuple(entry.tensor for entry in overflows if entry.overflows)


def _float_tensors(model: onnx.ModelProto) -> list[str]:
    """The names of all float32 activations, by ONNX's own type inference."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.output]
    return [value.name for value in values if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT]


def _with_peaks(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Add a scalar output a tensor, its largest magnitude: the tensors themselves would fill gigabytes."""
    peaked = onnx.ModelProto()
    peaked.CopyFrom(model)
    for name in names:
        magnitude = onnx.helper.make_node("Abs", [name], [f"{name}_magnitude"])
        peaked.graph.node.extend(
            [magnitude, onnx.helper.make_node("ReduceMax", magnitude.output, [name + _PEAK], keepdims=0)]
        )
    return peaked
