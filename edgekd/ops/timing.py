"""How fast the kernels are on this machine, as ratios to a plain copy in the same run: the memory's own limit.

A transform moves two maps (one read, one written), which is one copy. Loss and gradient read two maps and write one:
one and a half copies. Interleaved minima, so that a neighbour's noise hits every contender alike.
"""

import time
from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple

import torch

from edgekd.ops.haar import haar_dwt2, haar_weighted_mse

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
