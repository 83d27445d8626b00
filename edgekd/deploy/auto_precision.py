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

from edgekd.bundle import Precision
from edgekd.deploy.openvino_build import read_network
from edgekd.graphs import BOXES, IMAGE_EMBEDDINGS, LOW_RES_MASKS, MASK_LOGITS, StageName

MAX_RELATIVE_ERROR = 0.05
"""Root mean square of the difference to fp32 over that of the fp32 output; bf16 keeps 8 bits, about 1 % per network."""

MIN_MASK_IOU = 0.98
"""Mean IoU of the decoder's masks with those of fp32, on embeddings of unit variance."""

MIN_SPEEDUP = 1.05
_RUNS = 3
_HINTS: dict[Precision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


@dataclass(frozen=True)
class Choice:
    """A precision and why it was taken, in words for the manifest."""

    precision: Precision
    reason: str


def choose_precision(name: StageName, path: Path, inputs: dict[str, tuple[int, ...]]) -> Choice:
    """Measure fp32 and, where the CPU has it, bf16 in OpenVINO.

    Args:
        name: the stage; it decides what a typical input looks like.
        path: the ONNX graph.
        inputs: input name -> shape, -1 for the number of boxes.
    """
    import openvino

    core = openvino.Core()
    model = read_network(core, path)
    model.reshape({key: list(shape) for key, shape in inputs.items()})
    feeds = _typical_feeds(name, inputs)
    reference, fp32_ms = _measure(core, model, "fp32", feeds)
    if "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return Choice("fp32", "this CPU has no bf16 arithmetic")
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
    times_ms = {}
    for precision, path in ((best.precision, plain), ("int8", int8)):
        model = read_network(core, path)
        model.reshape({key: list(shape) for key, shape in inputs.items()})
        _, times_ms[precision] = _measure(core, model, precision, _typical_feeds(name, inputs))
    measured = f"int8 {times_ms['int8']:.1f} ms against {best.precision} {times_ms[best.precision]:.1f} ms"
    if times_ms[best.precision] < times_ms["int8"] * MIN_SPEEDUP:
        return Choice(best.precision, f"{measured}: int8 is not faster")
    return Choice("int8", measured)


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
