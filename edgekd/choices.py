"""Words that a user chooses from, each list in one place: the command line offers what the library takes.

Names of backends, precisions and calibration targets are in `edgekd.backends`, those of stages in `edgekd.graphs`.
"""

from __future__ import annotations

from typing import Literal

PrecisionWish = Literal["auto", "fp32", "bf16", "fp16", "int8"]
"""Of engines: `auto` measures on a CPU and means fp16 for TensorRT."""

Part = Literal["detector", "segmenter"]
"""One of the two networks of a chain, where something can be done for one alone."""

DemoKind = Literal["sam", "crop"]
"""Ways to a mask that the demonstration shows."""

Prompt = Literal["box", "box+centre"]
"""What the decoder of a promptable segmenter is told of a box."""

RangeMethod = Literal["minmax", "percentile", "entropy"]
"""How ranges of activations are found in calibration."""

WeightBits = Literal[7, 8]
"""Of INT8 weights: 7 keeps the sum of two products within 16 bits, where a processor adds them in 16."""

RangeMethodWish = Literal["auto", "minmax", "percentile", "entropy"]
"""`auto` measures all of them and keeps the best."""

LabelForm = Literal["coco", "yolo", "yolo-seg", "yolo-obb", "labelme", "label-studio", "csv"]
"""Forms in which a labelled set can be written."""

DistillMethod = Literal["none", "inherit", "feature", "ds2d2"]
"""How a detector learns: from labels alone, from features, attention and logits, or by DS2D2."""

TrainingPrecision = Literal["fp32", "bf16"]
"""Of the forward pass of a distillation."""

SegmenterName = Literal["tinysam", "sam3", "crop"]
"""Segmenters that can be fine-tuned."""

CropSizeName = Literal["S", "M", "L"]
"""Of the crop segmenter: crops of 64, 96 or 128 px."""

FloatType = Literal["float32", "float16", "bfloat16"]
"""Of the numbers that the Haar kernels are timed with."""
