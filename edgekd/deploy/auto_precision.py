"""`--precision auto` on a CPU: measure what this processor offers and keep the fastest that stays close to fp32.

A stage's graph goes in; a precision and the measured reason come out. Nothing is assumed about the processor: on some,
bf16 is emulated and slower than fp32.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.backends import Precision
from edgekd.deploy.build_options import BuildOptions, Choice
from edgekd.deploy.openvino_build import read_network
from edgekd.graphs import BOXES, IMAGE_EMBEDDINGS, LOW_RES_MASKS, MASK_LOGITS, StageName

MAX_RELATIVE_ERROR = 0.05
"""Root mean square of the difference to fp32 over that of the fp32 output; bf16 keeps 8 bits, about 1 % per network."""

MIN_MASK_IOU = 0.98
"""Mean IoU of the decoder's masks with those of fp32, on embeddings of unit variance."""

MIN_SPEEDUP = 1.05
_RUNS = 3
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}


@dataclass(frozen=True)
class StageGraphs:
    """The graphs of one stage: the float one, and the one with INT8 weights where it was calibrated."""

    plain: Path
    int8: Path | None

    def graph(self, precision: Precision) -> Path:
        """Return the graph that a precision is built from."""
        return self.int8 if self.int8 is not None and precision == "int8" else self.plain


def split_graph(path: Path, scratch: Path) -> StageGraphs:
    """Write the two graphs that one with Q/DQ pairs stands for: with INT8 weights, and the float one inside it."""
    import onnx

    from edgekd.deploy.qdq import fold_weights, keep_quantized

    model = onnx.load(path)
    graphs = StageGraphs(scratch / "float.onnx", scratch / "int8.onnx")
    onnx.save(keep_quantized(model, []), graphs.plain)
    onnx.save(fold_weights(model), scratch / "int8.onnx")
    return graphs


def choose(name: StageName, graphs: StageGraphs, inputs: dict[str, tuple[int, ...]], options: BuildOptions) -> Choice:
    """Decide the arithmetic of a stage: as chosen before, as asked for, measured, or by the backend's rule."""
    wish, backend = options.precision, options.facts
    if name in options.choices:
        return options.choices[name]
    if wish != "auto" and wish != "int8":
        return Choice(wish, "as asked for" + (", without the Q/DQ pairs" if graphs.int8 else ""))
    if graphs.int8 is None:
        if not backend.measures:
            return Choice(backend.float_precision, backend.why)
        return choose_precision(name, graphs.plain, inputs)
    if not backend.measures:
        return Choice("int8", "the graph carries Q/DQ pairs")
    if wish == "auto":
        return choose_with_int8(name, graphs.int8, graphs.plain, inputs)
    return choose_floats(name, graphs.int8, inputs)[0]


def choose_precision(name: StageName, path: Path, inputs: dict[str, tuple[int, ...]]) -> Choice:
    """Measure fp32 and bf16 in OpenVINO where the CPU has bf16; without it nothing has to be measured.

    Args:
        name: the stage; it decides what a typical input looks like.
        path: the ONNX graph.
        inputs: input name -> shape, -1 for the number of boxes.
    """
    import openvino

    core = openvino.Core()
    if not _has_bf16(core):
        return Choice("fp32", "this CPU has no bf16 arithmetic")
    model, feeds = _model(core, path, inputs), _typical_feeds(name, inputs)
    reference, fp32_ms = _measure(core, model, "fp32", feeds)
    outputs, bf16_ms = _measure(core, model, "bf16", feeds)
    close, words = _closeness(outputs, reference)
    measured = f"bf16 {bf16_ms:.1f} ms against fp32 {fp32_ms:.1f} ms, {words}"
    if not close:
        return Choice("fp32", f"{measured}: too far from fp32")
    if fp32_ms < bf16_ms * MIN_SPEEDUP:
        return Choice("fp32", f"{measured}: not faster")
    return Choice("bf16", measured)


def choose_with_int8(name: StageName, int8: Path, plain: Path, inputs: dict[str, tuple[int, ...]]) -> Choice:
    """Measure an INT8 graph against the best float precision of the graph that it was made from.

    Speed alone is compared here; how close INT8 is to float is what `edgekd calibrate` and the gate look at.
    """
    import openvino

    core = openvino.Core()
    best = choose_precision(name, plain, inputs)
    choice, int8_ms = choose_floats(name, int8, inputs)
    _, float_ms = _measure(core, _model(core, plain, inputs), best.precision, _typical_feeds(name, inputs))
    measured = f"int8 {int8_ms:.1f} ms against {best.precision} {float_ms:.1f} ms"
    if float_ms < int8_ms * MIN_SPEEDUP:
        return Choice(best.precision, f"{measured}: int8 is not faster")
    return Choice("int8", f"{measured}; {choice.reason}", choice.float_precision)


def choose_floats(name: StageName, int8: Path, inputs: dict[str, tuple[int, ...]]) -> tuple[Choice, float]:
    """Measure an INT8 graph with its float layers in fp32 and, where the CPU has it, in bf16.

    Returns:
        The choice, and the milliseconds of a run with it.
    """
    import openvino

    core = openvino.Core()
    model, feeds = _model(core, int8, inputs), _typical_feeds(name, inputs)
    reference, fp32_ms = _measure(core, model, "fp32", feeds)
    if not _has_bf16(core):
        return Choice("int8", "its float layers in fp32, this CPU has no bf16 arithmetic"), fp32_ms
    outputs, bf16_ms = _measure(core, model, "bf16", feeds)
    close, words = _closeness(outputs, reference)
    measured = f"float layers in bf16 {bf16_ms:.1f} ms against fp32 {fp32_ms:.1f} ms, {words}"
    if not close or fp32_ms < bf16_ms * MIN_SPEEDUP:
        return Choice("int8", f"{measured}: {'not faster' if close else 'too far from fp32'}"), fp32_ms
    return Choice("int8", measured, "bf16"), bf16_ms


def _has_bf16(core: Any) -> bool:
    return "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _model(core: Any, path: Path, inputs: dict[str, tuple[int, ...]]) -> Any:
    model = read_network(core, path)
    model.reshape({key: list(shape) for key, shape in inputs.items()})
    return model


def _closeness(outputs: dict[str, NDArray[np.float32]], reference: dict[str, NDArray[np.float32]]) -> tuple[bool, str]:
    """Whether the outputs may stand for the reference, and the measure of that in words."""
    logits = next((key for key in (LOW_RES_MASKS, MASK_LOGITS) if key in reference), None)
    if logits:
        # Outside a box a logit is its distance in pixels, so that large values say nothing about masks.
        iou = mask_iou(outputs[logits], reference[logits])
        return iou >= MIN_MASK_IOU, f"mask IoU {iou:.4f}"
    error = max(relative_error(outputs[key], reference[key]) for key in reference)
    return error <= MAX_RELATIVE_ERROR, f"relative error {error:.4f}"


def mask_iou(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Mean IoU of masks (n, h, w), positive logits, with those of the reference; 1 for two empty ones."""
    found, truth = logits > 0, reference > 0
    union = (found | truth).sum(axis=(1, 2))
    overlap = (found & truth).sum(axis=(1, 2))
    return float(np.where(union > 0, overlap / np.maximum(union, 1), 1.0).mean())


def relative_error(value: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """Root mean square of the difference, over the root mean square of the reference."""
    scale = float(np.sqrt(np.mean(np.square(reference, dtype=np.float64))))
    return float(np.sqrt(np.mean(np.square(value - reference, dtype=np.float64)))) / max(scale, 1e-12)


def _measure(
    core: Any, model: Any, precision: Precision, feeds: dict[str, NDArray[Any]]
) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Outputs and the fastest of a few runs, in milliseconds."""
    config = {"INFERENCE_PRECISION_HINT": _HINTS[precision], "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    compiled = core.compile_model(model, "CPU", config)
    request = compiled.create_infer_request()
    request.infer(feeds)
    times = []
    for _ in range(_RUNS):
        start = time.perf_counter()
        request.infer(feeds)
        times.append((time.perf_counter() - start) * 1e3)
    outputs = {port.get_any_name(): request.get_output_tensor(i).data.copy() for i, port in enumerate(compiled.outputs)}
    return outputs, min(times)


def _typical_feeds(name: StageName, inputs: dict[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """Inputs with the statistics of real ones: smooth pictures, unit-variance embeddings, boxes inside the frame."""
    generator = np.random.default_rng(0)
    if name == "decoder":
        shape = inputs[IMAGE_EMBEDDINGS]
        corner = generator.uniform(0, 8 * min(shape[2:]), (4, 2))
        boxes = np.concatenate([corner, corner + 4 * min(shape[2:])], 1).astype(np.float32)
        return {IMAGE_EMBEDDINGS: generator.standard_normal(shape, np.float32), BOXES: boxes}
    key, shape = next(iter(inputs.items()))
    if name == "segmenter":
        side = shape[1]
        low = generator.integers(0, 256, (8, -(-side // 8), -(-side // 8), 3), np.uint8)
        return {key: np.ascontiguousarray(low.repeat(8, 1).repeat(8, 2)[:, :side, :side])}
    coarse = generator.random((1, 3, shape[2] // 32, shape[3] // 32), np.float32)
    noise = generator.random(shape, np.float32)
    picture = np.asarray(coarse.repeat(32, 2).repeat(32, 3) * 0.7 + noise * 0.3, np.float32)
    return {key: picture if name == "detector" else np.asarray((picture - 0.45) / 0.225, np.float32)}
