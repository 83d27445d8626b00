"""The TensorRT path on a real GPU: build what users build, compare with ONNX Runtime, and only then time.

    python benchmarks/verify_tensorrt.py [--models DIR] [--backend tensorrt|tensorrt-rtx] [--out FILE]

To be run on a Jetson or on any machine with an NVIDIA GPU and TensorRT (8.6 to 11) or TensorRT-RTX; the development
machine has no GPU, so no result of it is recorded yet. It first checks the CUDA kernels (`verify_kernels.py`): against
the CPU, under compute-sanitizer, and their bandwidth against a copy. Then for every precision it

    builds the bundle with `build_bundle`, as `edgekd build-engine` does
    compares the outputs of every engine with ONNX Runtime (the decoder for each number of boxes), with and without
    CUDA graphs, and two clones in two threads with one engine; a truncated plan must be refused with one sentence;
    trtexec must load a plan of TensorRT where it is installed
    opens the whole chain, compares boxes, embeddings and masks with ONNX Runtime's chain, and benches it
    opens the C library on the same bundle where it can be built, and compares it with Python
    times h2d, gpu_compute and d2h by CUDA events, with and without CUDA graphs; an engine that failed gets no times

Every step is written to the result file when it is done. The same command goes on where it was stopped: bundles wait in
the folder FILE.work, finished steps are not repeated. Exit code 1 when anything failed.
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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import verify_kernels
from result_file import result_path

from edgekd.backends import BACKENDS
from edgekd.bundle import read_manifest
from edgekd.capi.build import build_library
from edgekd.capi.library import CChain, Library
from edgekd.deploy import engine_check
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.engine_check import compare_engines
from edgekd.environment import describe_machine
from edgekd.errors import BundleError, EdgekdError
from edgekd.files import sha256_of, write_text
from edgekd.graphs import StageName
from edgekd.measure.latency import BenchOptions, distribution, measure_latency
from edgekd.model_set import ModelSet, OnnxStage, read_model_set
from edgekd.package_files import DEMO_PICTURE, default_models
from edgekd.runtime.chain import Chain
from edgekd.runtime.cuda import open_cuda
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.engines import Array
from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgekd.runtime.engines.tensorrt import TensorRtEngine
from edgekd.runtime.sources import read_picture
from edgekd.runtime.tensorrt_library import library_version

N_BOXES = (1, 8, 16)
N_WARM_UP, N_RUNS, N_ROUNDS = 50, 500, 20
# Largest difference over the largest value of the output. float16 keeps 11 bits and sums some thousand products;
# INT8 is compared with the same Q/DQ graph, where single values may round to the neighbouring step.
LIMITS = {"fp32": 1e-3, "fp16": 2e-2, "int8": 5e-2}


def main(words: list[str] | None = None) -> int:
    """Verify every precision, step by step, and write the result after each."""
    arguments = parse(words)
    try:
        compute_capability = open_cuda().compute_capability()
        model_set = read_model_set(arguments.models)
    except EdgekdError as error:
        print(error, file=sys.stderr)
        return 1
    machine = describe_machine()
    out = arguments.output or result_path("verify_tensorrt")
    head = {
        "theme": "verify_tensorrt",
        "machine": machine.model_dump(),
        "backend": arguments.backend,
        "backend_version": library_version(BACKENDS[arguments.backend].rtx),
        "compute_capability": compute_capability,
        "models_sha256": sha256_of(arguments.models / "models.json"),
        "settings": {"n_boxes": N_BOXES, "n_warm_up": N_WARM_UP, "n_runs": arguments.runs, "limits": LIMITS},
    }
    log = Log(out, head)
    log.step("picture kernels", lambda: verify_kernels.verify_pictures(min(arguments.runs, 100)))
    log.step("Haar kernels", verify_kernels.verify_haar)
    for tool in ("memcheck", "racecheck"):
        log.step(f"kernels under {tool}", lambda t=tool: verify_kernels.verify_with_sanitizer(t))
    for precision in precisions_of(model_set, arguments.precisions):
        folder = out.with_suffix(".work") / precision
        log.step(f"{precision} bundle", lambda p=precision, f=folder: build(arguments, f, p))
        if not (folder / "bundle").is_dir():
            continue
        for name, stage in model_set.stages.items():
            job = Job(arguments, model_set, folder / "bundle", name, precision)
            log.step(f"{precision} {name}", lambda j=job, s=stage: verify(j, s))
        log.step(f"{precision} chain", lambda f=folder: verify_chain(f, arguments.runs))
        log.step(f"{precision} C library", lambda f=folder: verify_c_library(f / "bundle"))
    print(out)
    return 0 if all(row["passed"] for row in log.result["steps"].values()) else 1


class Log:
    """The result file; a file of the same machine, models and settings is continued, another one is replaced."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self._path = path
        self.result = json.loads(json.dumps(head)) | {"steps": {}}
        if path.is_file():
            old = json.loads(path.read_text())
            same = ("backend", "backend_version", "compute_capability", "models_sha256", "settings")
            if all(old.get(key) == self.result[key] for key in same):
                done = {name: row for name, row in old.get("steps", {}).items() if row["passed"]}
                self.result["steps"] = done

    def step(self, name: str, work: Callable[[], dict[str, Any]]) -> None:
        """Do a step unless it is done; a refusal or a failure of the GPU becomes its `error`."""
        if name in self.result["steps"]:
            return
        start = time.perf_counter()
        try:
            row = work()
        except (EdgekdError, CudaError) as error:
            row = {"passed": False, "error": str(error)}
        row["seconds"] = round(time.perf_counter() - start, 2)
        self.result["steps"][name] = row
        write_text(self._path, json.dumps(self.result, indent=2) + "\n")
        print(f"{name}: {'passed' if row['passed'] else row}", file=sys.stderr)


@dataclass(frozen=True)
class Job:
    """One engine to verify."""

    arguments: argparse.Namespace
    model_set: ModelSet
    bundle: Path
    name: StageName
    precision: str

    @property
    def rtx(self) -> bool:
        """Whether TensorRT-RTX built it."""
        return BACKENDS[self.arguments.backend].rtx


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=None, help="what edgekd export or calibrate wrote")
    parser.add_argument("--backend", choices=("tensorrt", "tensorrt-rtx"), default="tensorrt")
    parser.add_argument("--precisions", default=None, help="such as fp16; default: int8, or fp32,fp16 of a float set")
    parser.add_argument("--runs", type=int, default=N_RUNS, help="timed runs of each engine")
    parser.add_argument("-o", "--output", "--out", type=Path, default=None, help="the result file")
    arguments = parser.parse_args(words)
    arguments.models = arguments.models or default_models()
    return arguments


def precisions_of(model_set: ModelSet, wish: str | None) -> list[str]:
    """Return what to build: INT8 of a quantized set, else both float precisions."""
    if wish:
        return wish.split(",")
    return ["int8"] if any(stage.quantized for stage in model_set.stages.values()) else ["fp32", "fp16"]


def build(arguments: argparse.Namespace, folder: Path, precision: str) -> dict[str, Any]:
    """Build the bundle that users build, and ONNX Runtime's beside it."""
    options = BuildOptions(backend=arguments.backend, precision=precision)  # type: ignore[arg-type]
    manifest = build_bundle(arguments.models, folder / "bundle", options)
    stand_in = "int8" if precision == "int8" else "fp32"
    reference = BuildOptions(backend="onnxruntime", precision=stand_in, square=True)  # type: ignore[arg-type]
    build_bundle(arguments.models, folder / "reference", reference)
    sizes = {name: stage.files[0].n_bytes for name, stage in manifest.stages.items()}
    return {"passed": True, "plan_bytes": sizes, "notes": list(manifest.notes)}


def verify_chain(folder: Path, n_runs: int) -> dict[str, Any]:
    """Compare the chain with ONNX Runtime's on the demonstration picture, and bench it."""
    found = compare_engines(folder / "reference", folder / "bundle")
    agreement = {name: getattr(found, name) for name in engine_check.LIMITS}
    row: dict[str, Any] = {"agreement": agreement}
    row["passed"] = all(v is None or v >= engine_check.LIMITS[name] for name, v in agreement.items())
    if row["passed"]:
        report = measure_latency(folder / "bundle", options=BenchOptions(min_runs=min(n_runs, 200), min_seconds=0))
        row["latency"] = report.model_dump(include={"stages", "engines", "per_box_ms", "throughput_per_s", "warnings"})
    return row


def verify_c_library(bundle: Path) -> dict[str, Any]:
    """Compare the C library with Python on the same bundle; left out where it cannot be built."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = Library(build_library(Path(folder)))
        except EdgekdError as error:
            return {"passed": True, "left_out": str(error)}
        if not (Path(folder) / "lib" / "libedgekd_tensorrt.so").is_file():
            return {"passed": True, "left_out": "libedgekd was built without its TensorRT module"}
        picture = read_picture(DEMO_PICTURE)
        with Chain.open(bundle) as python, CChain.open(library, bundle) as c:
            one, other = python(picture), c(picture)
        differences = [
            float((one.masks.full(index) != other.masks.full(index)).mean())
            for index in range(min(len(one), len(other)))
        ]
    worst = max(differences, default=0.0)
    return {"passed": len(one) == len(other) and worst < 1e-3, "n_boxes": len(one), "different_pixels": worst}


def feeds_of(stage: OnnxStage, model_set: ModelSet) -> list[dict[str, Array]]:
    """Random inputs in the ranges of the real ones; the decoder gets one set for each number of boxes."""
    rng = np.random.default_rng(0)
    detector, encoder = model_set.pipeline.detector_input, model_set.pipeline.encoder_input
    height, width = (encoder.height_px, encoder.width_px) if encoder else (0, 0)
    makers = {
        "images": lambda: rng.random((1, 3, detector.height_px, detector.width_px), np.float32),
        "image": lambda: rng.standard_normal((1, 3, height, width), np.float32),
        "image_embeddings": lambda: rng.standard_normal((1, 256, height // 16, width // 16), np.float32),
    }
    fixed = {spec.name: makers[spec.name]() for spec in stage.inputs if spec.name in makers}
    names = {spec.name for spec in stage.inputs}
    if crop := model_set.pipeline.crop if "crops" in names else None:
        side = crop.side_px
        return [{"crops": rng.integers(0, 256, (n, side, side, 3), np.uint8)} for n in N_BOXES]
    if "boxes" not in names:
        return [fixed]
    corners = [np.sort(rng.random((n, 2, 2), np.float32), axis=1) * (width, height) for n in N_BOXES]
    return [fixed | {"boxes": corner.reshape(-1, 4).astype(np.float32)} for corner in corners]


def verify(job: Job, stage: OnnxStage) -> dict[str, Any]:
    """Check and time one engine."""
    manifest = read_manifest(job.bundle)
    file, feeds = job.bundle / manifest.stages[job.name].files[0].name, feeds_of(stage, job.model_set)
    precision = manifest.stages[job.name].precision
    row = check(job.arguments.models / stage.file, file, feeds, job.rtx, precision)
    if row["passed"]:
        labels = {"plain": False, "graph": True}
        row["times_ms"] = {
            label: time_engine(file, feeds, job.rtx, use_graphs, job.arguments.runs)
            for label, use_graphs in labels.items()
        }
    return row | {"precision": precision}


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
        "trtexec_loads_it": None if rtx else trtexec_loads(file),
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
    """Run two clones at once, `N_ROUNDS` rounds each, and return their largest difference from the reference."""
    engine = TensorRtEngine.open(file, rtx)
    found: list[float] = []

    def work(clone: TensorRtEngine) -> None:
        for feed, reference in N_ROUNDS * list(zip(feeds, references, strict=True)):
            found.append(difference(clone.infer(feed), reference))
        clone.close()

    threads = [threading.Thread(target=work, args=(clone,)) for clone in (engine, engine.clone())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    complete = len(found) == 2 * N_ROUNDS * len(feeds)
    return max(found) if complete else float("inf")


def refuses_truncated(file: Path, rtx: bool) -> bool:
    """Say whether half a plan is refused with an error of ours."""
    half = Path(tempfile.mkdtemp()) / "half.engine"
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


def time_engine(file: Path, feeds: list[dict[str, Array]], rtx: bool, use_graphs: bool, n_runs: int) -> dict[str, Any]:
    """Distributions of h2d, gpu_compute and d2h in milliseconds for each set of inputs."""
    engine = TensorRtEngine.open(file, rtx, use_graphs=use_graphs)
    rows = {}
    for feed in feeds:
        for _ in range(min(N_WARM_UP, n_runs)):
            engine.infer(feed)
        samples: dict[str, list[float]] = {"h2d": [], "gpu_compute": [], "d2h": []}
        for _ in range(n_runs):
            engine.infer(feed)
            for part, value in engine.times_ms.items():
                samples[part].append(value)
        label = f"boxes={len(feed['boxes'])}" if "boxes" in feed else "one picture"
        rows[label] = {part: distribution(values).model_dump() for part, values in samples.items()}
    engine.close()
    return rows


if __name__ == "__main__":
    sys.exit(main())
