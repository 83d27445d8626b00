"""What is asked of a build, and what one builder is given: two records that flow from the command line to a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgekd.backends import BACKENDS, Backend, BackendName, Precision
from edgekd.bundle import GateResult
from edgekd.choices import PrecisionWish
from edgekd.graphs import StageName

InputShapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Choice:
    """An arithmetic and why it was taken, in words for the manifest.

    Attributes:
        precision: of the stage.
        reason: measured numbers, or the rule.
        float_precision: of the layers that stay float in an INT8 graph; None means fp32.
    """

    precision: Precision
    reason: str
    float_precision: Literal["fp32", "bf16"] | None = None


@dataclass(frozen=True)
class BuildOptions:
    """How to build a bundle.

    Attributes:
        backend: which library will run it.
        precision: of the arithmetic; `auto` measures on a CPU and means fp16 for TensorRT; with `int8` the stages
            without Q/DQ pairs are float in the precision that `auto` would take.
        compute_capability: such as "8.9", of the GPU to build for; None for the GPU at hand.
        detector_px, encoder_px: (height, width) of the inputs; None keeps what the models were exported for.
        square: feed the full size always; else a CPU network with open sizes also takes smaller ones, see
            `smaller_sizes`. A TensorRT plan and a calibrated graph hold one size.
        max_boxes: most boxes per picture.
        box_buckets: numbers of boxes the decoder is called with; empty leaves the number open.
        workspace_bytes, optimization_level, timing_cache: TensorRT's; see `PlanOptions`.
        gate: what an accuracy gate measured, for the manifest; see `edgekd.deploy.gate`.
        choices: arithmetic of stages that was chosen before, such as for the bundle that a gate measured.
        known_answer: ask the engines about a small picture, so that `edgekd doctor` can tell whether they still say the
            same; engines for a GPU that is not here have no answer.
        notes: lines for the manifest beside those of the stages.
    """

    backend: BackendName = "openvino"
    precision: PrecisionWish = "auto"
    compute_capability: str | None = None
    detector_px: tuple[int, int] | None = None
    encoder_px: tuple[int, int] | None = None
    square: bool = False
    max_boxes: int = 300
    box_buckets: tuple[int, ...] = ()
    workspace_bytes: int | None = None
    optimization_level: int | None = None
    timing_cache: Path | None = None
    gate: GateResult | None = None
    choices: Mapping[StageName, Choice] = field(default_factory=dict)
    known_answer: bool = True
    notes: tuple[str, ...] = ()

    @property
    def facts(self) -> Backend:
        """The backend's entry in the table."""
        return BACKENDS[self.backend]

    @property
    def buckets(self) -> tuple[int, ...]:
        """Numbers of boxes that are built: those asked for, else the backend's."""
        return self.box_buckets or self.facts.box_buckets


@dataclass(frozen=True)
class EngineJob:
    """One stage for a builder.

    Attributes:
        graph: the ONNX file as its precision wants it.
        full: input name -> shape at the full size; -1 is the number of boxes, left open.
        built: the same as the engine is built; -1 is also a side that has more than one size.
        target: where the engine goes, without a suffix.
        precision: of the arithmetic.
        fp32_tensors: overflowed FP16 on the calibration pictures and stay in FP32.
        options: of the whole build.
    """

    graph: Path
    full: InputShapes
    built: InputShapes
    target: Path
    precision: Precision
    fp32_tensors: tuple[str, ...]
    options: BuildOptions
