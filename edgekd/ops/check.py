"""Prove the kernels on this machine: every implementation that can compute here against float64 references.

Used by `edgekd kernels check` and, before any time is printed, by the benchmarks, whose clock is here too.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

import torch
from torch import Tensor

from edgekd.choices import FloatType
from edgekd.errors import EdgekdError
from edgekd.ops._dispatch import CHOICES, resolve_backend, why_unavailable
from edgekd.ops._reference import HaarBands, haar_dwt2_ref, haar_idwt2_ref, haar_weighted_mse_ref
from edgekd.ops.haar import haar_dwt2, haar_idwt2, haar_weighted_mse

BACKENDS = CHOICES[1:]
SHAPES = ((2, 3, 7, 9), (2, 4, 10, 20), (1, 8, 13, 20), (2, 8, 40, 40), (1, 4, 80, 80))
# Relative to the largest magnitude of the truth: float32 arithmetic, then the rounding of the stored dtype.
TOLERANCES = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
GRADIENT_SCALE = 65536.0  # as a gradient scaler would, or float16 cannot hold the gradient of a mean


class Finding(NamedTuple):
    """One comparison: the largest error relative to the largest magnitude, and what it may be."""

    backend: str
    case: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        """Say whether the error is a number and small enough."""
        return self.error <= self.tolerance


def available_backends(device: str) -> dict[str, str | None]:
    """Return every implementation with the reason why it cannot compute float32 on this device, or None."""
    return {name: why_unavailable(name, device, torch.float32) for name in BACKENDS}


def check_backend(backend: str, device: str) -> Iterator[Finding]:
    """Compare transform, inverse, loss and gradient of one implementation with the float64 reference."""
    generator = torch.Generator().manual_seed(0)
    for dtype, tolerance in TOLERANCES.items():
        for shape in SHAPES:
            student, teacher = (torch.randn(shape, generator=generator).to(device, dtype) for _ in range(2))
            case = f"{str(dtype).removeprefix('torch.')} {'x'.join(map(str, shape))}"
            for what, ours, truth in _results(student, teacher, backend):
                yield Finding(backend, f"{what} {case}", _relative_error(ours, truth), tolerance)


def check_kernels(device: str, say: Callable[[str], None], skipped: Callable[[str], None]) -> None:
    """Check every implementation of a device.

    Args:
        device: cpu or cuda.
        say: takes the lines about what was checked.
        skipped: takes a line per implementation that cannot compute here.

    Raises:
        EdgekdError: a comparison failed.
    """
    n_failed = 0
    for backend, obstacle in available_backends(device).items():
        if obstacle:
            skipped(f"{backend}: skipped, {obstacle}")
            continue
        findings = list(check_backend(backend, device))
        failed = [finding for finding in findings if not finding.passed]
        worst = max(finding.error / finding.tolerance for finding in findings)
        say(f"{backend}: {len(findings) - len(failed)} of {len(findings)} pass, worst at {worst:.2f} of its limit")
        for finding in failed:
            say(f"  {finding.case}: error {finding.error:.2e}, at most {finding.tolerance:.0e}")
        n_failed += len(failed)
    if n_failed:
        raise EdgekdError(
            f"{n_failed} comparisons of the Haar kernels failed; set EDGEKD_KERNELS=reference until fixed."
        )


def _results(student: Tensor, teacher: Tensor, backend: str) -> Iterator[tuple[str, Tensor, Tensor]]:
    bands = haar_dwt2(student, backend=backend)
    for name, ours, truth in zip(HaarBands._fields, bands, haar_dwt2_ref(student.double()), strict=True):
        yield name, ours, truth
    size = (student.shape[2], student.shape[3])
    wide = HaarBands(*(band.double() for band in bands))
    yield "inverse", haar_idwt2(bands, size, backend), haar_idwt2_ref(wide, size)
    n, _, height, width = student.shape
    cell_weight = torch.linspace(0.5, 1.5, n * ((height + 1) // 2) * ((width + 1) // 2), device=student.device)
    cell_weight = cell_weight.view(n, 1, (height + 1) // 2, (width + 1) // 2)
    x, y = student.clone().requires_grad_(), student.double().requires_grad_()
    ours = haar_weighted_mse(x, teacher, 0.5, 1.5, cell_weight, backend)
    truth = haar_weighted_mse_ref(y, teacher.double(), 0.5, 1.5, cell_weight.double())
    yield "loss", ours, truth
    (gradient,) = torch.autograd.grad(GRADIENT_SCALE * ours, x)
    (true_gradient,) = torch.autograd.grad(GRADIENT_SCALE * truth, y)
    yield "gradient", gradient, true_gradient


def _relative_error(ours: Tensor, truth: Tensor) -> float:
    error = (ours.double() - truth).abs().max() / truth.abs().max()
    return float(error.item())


def bench_kernels(
    shape: tuple[int, int, int, int],
    dtype: FloatType,
    device: str,
    say: Callable[[str], None],
    skipped: Callable[[str], None],
) -> None:
    """Check the kernels of a device, then say how long those take that it would use; arguments as `check_kernels`.

    Raises:
        EdgekdError: a comparison failed; nothing is timed then.
    """
    check_kernels(device, say, skipped)
    number = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}[dtype]
    for timing in time_kernels(shape, number, device, resolve_backend(device, number).name):
        say(
            f"{timing.name:18} {timing.minimum_ms:9.3f} ms (median {timing.median_ms:.3f}), "
            f"{timing.ratio_to_limit:.2f} times the copy's limit"
        )


Contenders = Mapping[str, Callable[[], object]]
COPIES = {"copy": 1.0, "forward": 1.0, "loss and gradient": 1.5}  # the least traffic, in copies of a map


class Timing(NamedTuple):
    """Milliseconds of one contender, and its ratio to the least time the copy allows."""

    name: str
    minimum_ms: float
    median_ms: float
    ratio_to_limit: float


def time_kernels(shape: tuple[int, int, int, int], dtype: torch.dtype, device: str, backend: str) -> list[Timing]:
    """Time copy, forward transform, and loss with gradient of one implementation on random maps."""
    student = torch.randn(shape, device=device).to(dtype).requires_grad_()
    teacher, target = torch.randn_like(student), torch.empty_like(student)

    def step() -> None:
        student.grad = None
        haar_weighted_mse(student, teacher, 0.5, 1.5, None, backend).backward()

    x = student.detach()
    contenders = {
        "copy": lambda: target.copy_(x),
        "forward": lambda: haar_dwt2(x, backend=backend),
        "loss and gradient": step,
    }
    times = interleaved_ms(contenders, device, repeats=30)
    copy_ms = min(times["copy"])
    return [
        Timing(name, min(ms), sorted(ms)[len(ms) // 2], min(ms) / (COPIES[name] * copy_ms))
        for name, ms in times.items()
    ]


def interleaved_ms(contenders: Contenders, device: str, repeats: int) -> dict[str, list[float]]:
    """Return the milliseconds of every repeat of every contender, run in turns after three rounds of warm-up.

    Every round has another order: who follows a contender that leaves its maps in the caches is faster for it.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    shuffled = Random(0)
    for i in range(3 + repeats):
        for name in shuffled.sample(list(contenders), len(contenders)):
            elapsed = _elapsed_ms(contenders[name], device)
            if i >= 3:
                times[name].append(elapsed)
    return times


def _elapsed_ms(run: Callable[[], object], device: str) -> float:
    if device != "cuda":
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
