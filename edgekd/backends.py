"""The backends in one frozen table: what each can build, where it runs, and what stands in for it on another machine.

Whoever needs to know something of a backend looks it up here; nothing else compares names. How it builds is in
`edgekd.deploy`, how it runs in `edgekd.runtime.engines`, one file per backend in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

BackendName = Literal["openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
CalibrationTarget = Literal["tensorrt", "cpu"]


@dataclass(frozen=True)
class Backend:
    """What the rest must know of a backend.

    Attributes:
        precisions: what it builds.
        module: `deploy/<module>_build.py` builds, `runtime/engines/<module>.py` runs its engines.
        device: where its engines run.
        float_precision: of a float graph when nothing was asked for or a float graph stands beside INT8 ones.
        why: the reason for `float_precision`, for the manifest.
        measures: `float_precision` is only the start: what is fastest on this machine is measured.
        calibration_targets: Q/DQ graphs that it runs; the first is the one to calibrate for.
        stand_in: the backend that measures its graphs on a machine without its device.
        one_size: its engines hold one input size; else a graph with open sizes keeps them open.
        box_buckets: numbers of boxes that are built by default; empty leaves the number open.
        needs_device_packages: building needs the extra `device`.
        rtx: its library is TensorRT-RTX.
        bound_to_board: its engines fit one number of multiprocessors only.
    """

    precisions: tuple[Precision, ...]
    module: Literal["openvino", "onnxruntime", "tensorrt"]
    device: Literal["cpu", "gpu"]
    float_precision: Precision
    why: str
    calibration_targets: tuple[CalibrationTarget, ...]
    stand_in: BackendName
    measures: bool = False
    one_size: bool = False
    box_buckets: tuple[int, ...] = ()
    needs_device_packages: bool = True
    rtx: bool = False
    bound_to_board: bool = False

    @property
    def on_gpu(self) -> bool:
        """Whether its engines need an NVIDIA GPU."""
        return self.device == "gpu"


_BUCKETS = (1, 4, 8, 16)
BACKENDS: Mapping[BackendName, Backend] = {
    "openvino": Backend(
        precisions=("fp32", "bf16", "fp16", "int8"),
        module="openvino",
        device="cpu",
        float_precision="fp32",
        why="OpenVINO's float arithmetic on every CPU",
        calibration_targets=("cpu",),
        stand_in="openvino",
        measures=True,
        needs_device_packages=False,
    ),
    "onnxruntime": Backend(
        precisions=("fp32", "int8"),
        module="onnxruntime",
        device="cpu",
        float_precision="fp32",
        why="ONNX Runtime's float arithmetic on a CPU",
        calibration_targets=("cpu", "tensorrt"),
        stand_in="onnxruntime",
    ),
    "tensorrt": Backend(
        precisions=("fp32", "fp16", "int8"),
        module="tensorrt",
        device="gpu",
        float_precision="fp16",
        why="TensorRT's default here, with fp32 islands",
        calibration_targets=("tensorrt",),
        stand_in="onnxruntime",
        one_size=True,
        box_buckets=_BUCKETS,
        bound_to_board=True,
    ),
    # It chooses kernels where the plan runs, so its plans fit every board of a compute capability.
    "tensorrt-rtx": Backend(
        precisions=("fp32", "fp16", "int8"),
        module="tensorrt",
        device="gpu",
        float_precision="fp16",
        why="TensorRT's default here, with fp32 islands",
        calibration_targets=("tensorrt",),
        stand_in="onnxruntime",
        one_size=True,
        rtx=True,
        box_buckets=_BUCKETS,
    ),
}

TRIED_WITH: Mapping[CalibrationTarget, BackendName] = {"cpu": "openvino", "tensorrt": "onnxruntime"}
"""What runs candidates of a calibration for a target."""
