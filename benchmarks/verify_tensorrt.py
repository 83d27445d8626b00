"""The TensorRT path on a real GPU: build, load, run, compare with ONNX Runtime on the CPU, and only then time.

    python benchmarks/verify_tensorrt.py [--models DIR] [--backend tensorrt|tensorrt-rtx] [--out FILE]

To be run on a Jetson or on any machine with an NVIDIA GPU and TensorRT (8.6 to 11) or TensorRT-RTX; the development
machine has no GPU, so no result of it is recorded yet. For every stage and precision it

    builds the plan for the GPU at hand, and lets trtexec load it where trtexec is installed
    compares all outputs with ONNX Runtime (the decoder for each number of boxes), with and without CUDA graphs
    compares two clones in two threads with one engine
    checks that a truncated plan is refused with one sentence
    times h2d, gpu_compute and d2h by CUDA events, with and without CUDA graphs; a stage that failed gets no times

The result file names machine, versions and settings. Exit code 1 when anything failed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.deploy.tensorrt_build import PlanOptions, build_plan
from edgekd.environment import describe_machine, device_slug
from edgekd.errors import BundleError, EdgekdError
from edgekd.graphs import STAGES_OF_KIND
from edgekd.measure.latency import distribution
from edgekd.model_set import ModelSet, OnnxStage, read_model_set
from edgekd.package_files import default_models
from edgekd.runtime.cuda import open_cuda
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.engines import Array
from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgekd.runtime.engines.tensorrt import TensorRtEngine
from edgekd.runtime.tensorrt_library import library_version

N_BOXES = (1, 8, 32)
N_WARM_UP, N_RUNS = 50, 500
# Largest difference over the largest value of the output. float16 keeps 11 bits and sums some thousand products;
# INT8 is compared with the same Q/DQ graph, where single values may round to the neighbouring step.
LIMITS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}


def main() -> int:
    """Verify every stage in every precision that it has, and write the result."""
    arguments = parse()
    try:
        compute_capability = open_cuda().compute_capability()
        model_set = read_model_set(arguments.models)
    except EdgekdError as error:
        print(error, file=sys.stderr)
        return 1
    machine = describe_machine()
    rtx = arguments.backend == "tensorrt-rtx"
    result: dict[str, Any] = {
        "theme": "verify_tensorrt",
        "machine": machine.model_dump(),
        "backend": arguments.backend,
        "backend_version": library_version(rtx),
        "compute_capability": compute_capability,
        "settings": {"n_boxes": N_BOXES, "n_warm_up": N_WARM_UP, "n_runs": N_RUNS, "limits": LIMITS},
        "stages": [],
    }
    for name in STAGES_OF_KIND["sam"]:
        stage = model_set.stages[name]
        for precision in ("int8",) if stage.quantized else ("fp32", "fp16"):
            row = {"stage": name, "precision": precision, "onnx_sha256": stage.sha256}
            row |= verify(arguments.models / stage.file, feeds_of(stage, model_set), rtx, precision)
            result["stages"].append(row)
            print(json.dumps({key: value for key, value in row.items() if key != "onnx_sha256"}), file=sys.stderr)
    default = f"verify_tensorrt_{device_slug(machine)}_{time.strftime('%Y%m')}.json"
    out = arguments.out or Path(__file__).parent / "results" / default
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(out)
    return 0 if all(row["passed"] for row in result["stages"]) else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=None, help="what edgekd export or calibrate wrote")
    parser.add_argument("--backend", choices=("tensorrt", "tensorrt-rtx"), default="tensorrt")
    parser.add_argument("--out", type=Path, default=None, help="the result file")
    arguments = parser.parse_args()
    arguments.models = arguments.models or default_models()
    return arguments


def feeds_of(stage: OnnxStage, model_set: ModelSet) -> list[dict[str, Array]]:
    """Random inputs in the ranges of the real ones; the decoder gets one set for each number of boxes."""
    rng = np.random.default_rng(0)
    detector, encoder = model_set.pipeline.detector_input, model_set.pipeline.encoder_input
    height, width = encoder.height_px, encoder.width_px
    makers = {
        "images": lambda: rng.random((1, 3, detector.height_px, detector.width_px), np.float32),
        "image": lambda: rng.standard_normal((1, 3, height, width), np.float32),
        "image_embeddings": lambda: rng.standard_normal((1, 256, height // 16, width // 16), np.float32),
    }
    fixed = {spec.name: makers[spec.name]() for spec in stage.inputs if spec.name in makers}
    if "boxes" not in {spec.name for spec in stage.inputs}:
        return [fixed]
    corners = [np.sort(rng.random((n, 2, 2), np.float32), axis=1) * (width, height) for n in N_BOXES]
    return [fixed | {"boxes": corner.reshape(-1, 4).astype(np.float32)} for corner in corners]


def verify(path: Path, feeds: list[dict[str, Array]], rtx: bool, precision: str) -> dict[str, Any]:
    """Build, check and time one stage; a refusal or a failure of the GPU becomes the row's `error`."""
    profiles = {}
    for name in feeds[0]:
        shapes = [feed[name].shape for feed in feeds]
        profiles[name] = (shapes[0], shapes[len(shapes) // 2], shapes[-1])
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stage.engine"
        try:
            file.write_bytes(build_plan(path, PlanOptions(rtx, None, precision, profiles)))  # type: ignore[arg-type]
            row: dict[str, Any] = {"build_s": time.perf_counter() - start, "plan_bytes": file.stat().st_size}
            row |= check(path, file, feeds, rtx, precision)
            if row["passed"]:
                row["times_ms"] = {
                    label: time_engine(file, feeds, rtx, label == "graph") for label in ("plain", "graph")
                }
        except (EdgekdError, CudaError) as error:
            row = {"passed": False, "error": str(error)}
    return row


def check(path: Path, file: Path, feeds: list[dict[str, Array]], rtx: bool, precision: str) -> dict[str, Any]:
    """Compare with ONNX Runtime, in one thread and in two, and with a damaged file."""
    reference_engine = OnnxRuntimeEngine.open(path, None)
    references = [copied(reference_engine.infer(feed)) for feed in feeds]
    differences = {}
    for label in ("plain", "graph"):
        engine = TensorRtEngine.open(file, rtx, use_graphs=label == "graph")
        # Three rounds: the first runs plainly, the second records, the third replays after other shapes have run.
        pairs = 3 * list(zip(feeds, references, strict=True))
        found = [difference(engine.infer(feed), reference) for feed, reference in pairs]
        differences[label] = max(found)
        engine.close()
    in_threads = difference_in_threads(file, feeds, references, rtx)
    row = {
        "max_relative_difference": differences,
        "max_relative_difference_two_threads": in_threads,
        "truncated_plan_refused": refuses_truncated(file, rtx),
        "trtexec_loads_it": trtexec_loads(file),
    }
    agrees = max(*differences.values(), in_threads) <= LIMITS[precision]
    return row | {"passed": agrees and row["truncated_plan_refused"] and row["trtexec_loads_it"] is not False}


def copied(outputs: dict[str, Array]) -> dict[str, Array]:
    """Copy arrays that the next run would overwrite."""
    return {name: array.copy() for name, array in outputs.items()}


def difference(outputs: dict[str, Array], reference: dict[str, Array]) -> float:
    """Largest absolute difference over the largest value, of the worst output; infinite when a value is not finite."""
    worst = 0.0
    for name, expected in reference.items():
        if not np.isfinite(outputs[name]).all():
            return float("inf")
        worst = max(worst, float(np.abs(outputs[name] - expected).max() / np.abs(expected).max()))
    return worst


def difference_in_threads(
    file: Path, feeds: list[dict[str, Array]], references: list[dict[str, Array]], rtx: bool
) -> float:
    """Run two clones at once, twenty rounds each, and return their largest difference from the reference."""
    engine = TensorRtEngine.open(file, rtx)
    found: list[float] = []

    def work(clone: TensorRtEngine) -> None:
        for feed, reference in 20 * list(zip(feeds, references, strict=True)):
            found.append(difference(clone.infer(feed), reference))
        clone.close()

    threads = [threading.Thread(target=work, args=(clone,)) for clone in (engine, engine.clone())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    complete = len(found) == 2 * 20 * len(feeds)
    return max(found) if complete else float("inf")


def refuses_truncated(file: Path, rtx: bool) -> bool:
    """Say whether half a plan is refused with an error of ours."""
    half = file.with_name("half.engine")
    half.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    try:
        TensorRtEngine.open(half, rtx).close()
    except BundleError:
        return True
    return False


def trtexec_loads(file: Path) -> bool | None:
    """Say whether trtexec runs the plan; None where it is not installed."""
    program = shutil.which("trtexec") or shutil.which("/usr/src/tensorrt/bin/trtexec")
    if program is None:
        return None
    command = [program, f"--loadEngine={file}", "--iterations=10", "--duration=0"]
    return subprocess.run(command, capture_output=True).returncode == 0


def time_engine(file: Path, feeds: list[dict[str, Array]], rtx: bool, use_graphs: bool) -> dict[str, Any]:
    """Distributions of h2d, gpu_compute and d2h in milliseconds for each set of inputs."""
    engine = TensorRtEngine.open(file, rtx, use_graphs=use_graphs)
    rows = {}
    for feed in feeds:
        for _ in range(N_WARM_UP):
            engine.infer(feed)
        samples: dict[str, list[float]] = {"h2d": [], "gpu_compute": [], "d2h": []}
        for _ in range(N_RUNS):
            engine.infer(feed)
            for part, value in engine.times_ms.items():
                samples[part].append(value)
        label = f"boxes={len(feed['boxes'])}" if "boxes" in feed else "one picture"
        rows[label] = {part: distribution(values).model_dump() for part, values in samples.items()}
    engine.close()
    return rows


if __name__ == "__main__":
    sys.exit(main())
