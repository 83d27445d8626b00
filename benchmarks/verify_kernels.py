"""The CUDA kernels on a real GPU: the picture kernels against the CPU, the Haar kernels against float64, both under
compute-sanitizer, and how much of a copy's bandwidth they reach. `verify_tensorrt.py` calls this for its result file.

    python benchmarks/verify_kernels.py        the picture kernels once, for compute-sanitizer; exit code 1 when wrong
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.environment import has_module
from edgekd.errors import BackendUnavailable
from edgekd.model_set import CropInput, ImageInput
from edgekd.runtime.crops import cut
from edgekd.runtime.cuda import open_cuda
from edgekd.runtime.cuda_runtime import CudaRuntime
from edgekd.runtime.picture_job import crops_launch, letterbox_launch
from edgekd.runtime.picture_kernels import open_kernels
from edgekd.runtime.preprocess import place, preprocess
from edgekd.types import UInt8Array

# Width and height of pictures, side of the input: shrinking, growing, halving, odd.
CASES = ((1920, 1080, 640), (3840, 2160, 1024), (1279, 853, 1024), (300, 201, 640), (1280, 1280, 640))
CROP = CropInput(side_px=128, window_factor=1.3, pad=(114.0, 114.0, 114.0))
N_WINDOWS = 16
SECONDS = 240
"""Limit of each command that is started here."""


class Bench:
    """Device memory and a stream for kernels that are called by hand."""

    def __init__(self, cuda: CudaRuntime, resources: ExitStack) -> None:
        self.cuda, self._resources = cuda, resources
        self.stream = cuda.create_stream()
        resources.callback(cuda.destroy_stream, self.stream)
        self._events = [cuda.create_event() for _ in range(2)]
        for event in self._events:
            resources.callback(cuda.destroy_event, event)

    def memory(self, n_bytes: int) -> int:
        """Return the address of device memory that is freed at the end."""
        address = self.cuda.allocate(n_bytes)
        self._resources.callback(self.cuda.free, address)
        return address

    def upload(self, array: np.ndarray) -> int:
        """Return the address of a copy on the GPU."""
        device, host = self.memory(array.nbytes), self.cuda.allocate_pinned(array.nbytes)
        _bytes_at(host, array.nbytes)[:] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.cuda.copy_to_device(device, host, array.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        self.cuda.free_pinned(host)
        return device

    def download(self, device: int, like: np.ndarray) -> np.ndarray:
        """Return what lies at an address, in the form of another array."""
        host = self.cuda.allocate_pinned(like.nbytes)
        self.cuda.copy_to_host(host, device, like.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        found = _bytes_at(host, like.nbytes).copy().view(like.dtype).reshape(like.shape)
        self.cuda.free_pinned(host)
        return found

    def fastest_ms(self, run: Callable[[], None], n_runs: int) -> float:
        """Return the least time of a launch by CUDA events."""
        times = []
        for _ in range(n_runs):
            self.cuda.record(self._events[0], self.stream)
            run()
            self.cuda.record(self._events[1], self.stream)
            self.cuda.synchronize(self.stream)
            times.append(self.cuda.elapsed_ms(*self._events))
        return min(times)


def verify_pictures(n_runs: int) -> dict[str, Any]:
    """Compare both kernels with the CPU on real sizes; those that agree are timed against a copy of as many bytes."""
    cuda = open_cuda()
    if not isinstance(cuda, CudaRuntime):
        raise BackendUnavailable("the picture kernels need libcudart; unset EDGEKD_CUDA")
    rows = {}
    for width, height, side in CASES:
        picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        with ExitStack() as resources:
            bench = Bench(cuda, resources)
            rows[f"letterbox {width}x{height} to {side}"] = _letterbox(bench, picture, side, n_runs)
            if side == CASES[0][2]:
                rows[f"crops {width}x{height}"] = _crops(bench, picture, n_runs)
    return {"passed": all(row["levels"] <= 1.001 for row in rows.values()), "cases": rows}


def _letterbox(bench: Bench, picture: UInt8Array, side: int, n_runs: int) -> dict[str, float]:
    spec = ImageInput(
        height_px=side, width_px=side, place="centre", interpolation="area", mean=(0, 0, 0), std=(255, 255, 255),
        pad=(114, 114, 114),
    )  # fmt: skip
    expected, _ = preprocess(picture, spec)
    launch, kernels = (
        letterbox_launch(place((picture.shape[0], picture.shape[1]), spec), spec),
        open_kernels(bench.cuda),
    )
    device, out = bench.upload(picture), bench.memory(expected.nbytes)

    def run() -> None:
        kernels.letterbox(device, out, launch, bench.stream)

    run()
    levels = float(np.abs(bench.download(out, expected) - expected).max()) * 255
    return {"levels": levels} | _speed(bench, run, picture.nbytes + expected.nbytes, n_runs)


def _crops(bench: Bench, picture: UInt8Array, n_runs: int) -> dict[str, float]:
    generator = np.random.default_rng(1)
    corner = generator.integers(-40, min(picture.shape[:2]) - 20, (N_WINDOWS, 2))
    windows = np.concatenate([corner, corner + generator.integers(20, 400, (N_WINDOWS, 2))], 1).astype(np.int32)
    expected = cut(picture, windows, CROP)
    launch, kernels = crops_launch((picture.shape[0], picture.shape[1]), windows, CROP), open_kernels(bench.cuda)
    device, places, out = bench.upload(picture), bench.upload(windows), bench.memory(expected.nbytes)

    def run() -> None:
        kernels.crops(device, places, out, launch, bench.stream)

    run()
    levels = float(np.abs(bench.download(out, expected).astype(int) - expected).max())
    seen = int(((windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])).sum()) * 3
    return {"levels": levels} | _speed(bench, run, seen + expected.nbytes, n_runs)


def _speed(bench: Bench, run: Callable[[], None], n_bytes: int, n_runs: int) -> dict[str, float]:
    """Times, bandwidth, and its share of that of a copy on the device that moves as many bytes."""
    source, target = bench.memory(n_bytes), bench.memory(n_bytes)
    copy_ms = bench.fastest_ms(lambda: bench.cuda.copy_on_device(target, source, n_bytes // 2, bench.stream), n_runs)
    ms = bench.fastest_ms(run, n_runs)
    return {"ms": ms, "copy_ms": copy_ms, "gb_per_s": n_bytes / ms * 1e-6, "share_of_copy": copy_ms / ms}


def verify_haar() -> dict[str, Any]:
    """Run `edgekd kernels check` and `bench_haar.py` on the GPU; left out where torch has none."""
    if reason := _without_torch():
        return {"passed": True, "left_out": reason}
    checked = _run([sys.executable, "-m", "edgekd", "kernels", "check", "--device", "cuda"])
    row: dict[str, Any] = {"passed": checked.returncode == 0, "said": checked.stdout.splitlines()}
    if row["passed"]:
        with tempfile.TemporaryDirectory() as folder:
            script = Path(__file__).with_name("bench_haar.py")
            timed = _run([sys.executable, str(script), "--device", "cuda", "--repeats", "30", "--out", folder])
            files = sorted(Path(folder).glob("*.json"))
            row["passed"] = timed.returncode == 0 and bool(files)
            row["bench"] = json.loads(files[0].read_text()) if files else timed.stderr[-800:]
    return row


def verify_with_sanitizer(tool: str) -> dict[str, Any]:
    """Run the checks of both families under a tool of compute-sanitizer; left out where that is not installed."""
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        return {"passed": True, "left_out": "compute-sanitizer is not installed"}
    command = [program, "--tool", tool, "--error-exitcode", "9", sys.executable]
    works = {"pictures": [str(Path(__file__))]}
    if not _without_torch():
        works["haar"] = ["-m", "edgekd", "kernels", "check", "--device", "cuda"]
    codes = {name: _run([*command, *words]).returncode for name, words in works.items()}
    return {"passed": not any(codes.values()), "exit_codes": codes}


def _without_torch() -> str:
    """Why the Haar kernels, which compute on torch's tensors, cannot be checked; empty where they can."""
    if not has_module("torch"):
        return "torch is not installed"
    import torch

    return "" if torch.cuda.is_available() else "torch sees no GPU"


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        return subprocess.CompletedProcess(command, 124, "", f"not done after {error.timeout:.0f} s")


def _bytes_at(address: int, n_bytes: int) -> np.ndarray:
    return np.ctypeslib.as_array((ctypes.c_uint8 * n_bytes).from_address(address))


if __name__ == "__main__":
    sys.exit(0 if verify_pictures(n_runs=1)["passed"] else 1)
