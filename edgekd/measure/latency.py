"""How long the chain takes: every stage and the whole, as percentiles, with all that a reader needs to believe it.

A chain and pictures go in, a `LatencyReport` comes out. Vocabulary and warnings follow trtexec's.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

import edgekd
from edgekd.backends import BACKENDS
from edgekd.bundle import FILE_NAME
from edgekd.environment import Machine, describe_machine, is_jetson
from edgekd.errors import InputError
from edgekd.files import sha256_of
from edgekd.measure.device_state import DeviceState, read_state, state_warnings
from edgekd.measure.energy import Energy, start_meter
from edgekd.measure.samples import Distribution, distribution
from edgekd.measure.throughput import Throughput, ThroughputOptions, measure_throughput
from edgekd.package_files import DEMO_PICTURE
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.engines.openvino import KEPT_SIZES
from edgekd.runtime.preprocess import place
from edgekd.runtime.sources import expand, read_picture
from edgekd.types import Float32Array, UInt8Array

UNSTABLE_CV = 0.025
"""Above this coefficient of variation trtexec warns that the clocks may not be locked; so do we."""


class BenchSettings(BaseModel):
    """What was run: two reports with different settings are not comparable."""

    model_config = ConfigDict(frozen=True)

    pictures_px: tuple[tuple[int, int], ...]
    n_boxes: tuple[int, ...]
    warm_up_runs: int
    min_runs: int
    min_seconds: float
    n_threads: int | None
    confidence: float


class LatencyReport(BaseModel):
    """The content of a bench result file."""

    model_config = ConfigDict(frozen=True)

    kind: str = "latency"
    edgekd_version: str
    created: str
    machine: Machine
    bundle_sha256: str
    backend: str
    backend_version: str
    precision: dict[str, str]
    input_px: dict[str, tuple[tuple[int, int], ...]]
    settings: BenchSettings
    stages: dict[str, Distribution]
    engines: dict[str, dict[str, Distribution]]
    per_box_ms: float | None
    throughput_per_s: float
    warnings: tuple[str, ...]
    energy: Energy | None = None
    """Of all timed runs together, by the sensor of the board, the card or the processor; None where there is none."""

    joules_per_picture: float | None = None
    pictures: str = "host"
    """Where the networks' inputs are made: `GPU`, or `host` and why where a GPU could."""

    before: DeviceState = Field(default_factory=DeviceState)
    after: DeviceState = Field(default_factory=DeviceState)
    """Clocks, temperatures and what holds the device back, before the first timed run and after the last."""

    samples_ms: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    """Every timed run of every stage, in order; `bench compare` makes its intervals of them."""

    throughput: Throughput | None = None
    """Of several chains at once, where that was asked for; `throughput_per_s` is of one."""

    first_runs_ms: tuple[float, ...] = ()
    """What the first run of each input size took, compilation included; in no other number of the report."""


@dataclass(frozen=True)
class BenchOptions:
    """How long to measure.

    Attributes:
        warm_up_runs: runs that are thrown away; on a GPU at least two per picture.
        min_runs, min_seconds: both must be reached.
        n_threads: CPU threads the chain was opened with, for the record.
        n_chains: above 0, the pictures per second of so many chains at once are measured too.
    """

    warm_up_runs: int = 3
    min_runs: int = 20
    min_seconds: float = 5.0
    n_threads: int | None = None
    n_chains: int = 0


def measure_latency(
    bundle: str | Path,
    sources: Sequence[str | Path] = (),
    options: BenchOptions | None = None,
    chain_options: ChainOptions | None = None,
) -> LatencyReport:
    """Open a bundle and measure it on pictures; each input size is compiled before the clock starts.

    Args:
        bundle: what `edgekd build-engine` wrote.
        sources: pictures and folders of pictures; none takes the shipped one.
        options: how long; the defaults when None.
        chain_options: thresholds; the defaults when None.

    Raises:
        InputError: a picture cannot be read.
        EdgekdError: as for `Chain.open`.
    """
    options = options or BenchOptions()
    pictures = [read_picture(path) for path in expand(sources or (DEMO_PICTURE,))]
    with Chain.open(bundle, options.n_threads) as chain:
        sha256 = sha256_of(Path(bundle) / FILE_NAME)
        return bench_chain(chain, sha256, pictures, options, chain_options or ChainOptions())


def bench_chain(
    chain: Chain, bundle_sha256: str, pictures: Sequence[UInt8Array], options: BenchOptions, chain_options: ChainOptions
) -> LatencyReport:
    """Run the chain over the pictures in turn until the report is long enough.

    Args:
        chain: an open bundle.
        bundle_sha256: of its manifest, for the record.
        pictures: (H, W, 3) uint8 BGR each.
        options: how long.
        chain_options: thresholds; the confidence decides how many boxes are segmented.

    Raises:
        InputError: no picture was given.
    """
    if not pictures:
        raise InputError("no picture was given to bench, expected at least one; name a picture or folder")
    first_runs_ms = [chain.warm_up(size_px) for size_px in _sizes_to_compile(chain, pictures)]
    for index in range(max(options.warm_up_runs, _least_warm_ups(chain, len(pictures)))):
        chain(pictures[index % len(pictures)], chain_options)
    samples: dict[str, list[float]] = {}
    engines: dict[str, dict[str, list[float]]] = {}
    n_boxes: list[int] = []
    before = read_state()
    meter = start_meter(BACKENDS[chain.manifest.backend].on_gpu)
    start = time.perf_counter()
    runs = 0
    while runs < options.min_runs or time.perf_counter() - start < options.min_seconds:
        result = chain(pictures[runs % len(pictures)], chain_options)
        _append(samples, result.times_ms)
        for name, times_ms in chain.engine_times_ms().items():
            _append(engines.setdefault(name, {}), times_ms)
        if runs < len(pictures):
            n_boxes.append(len(result))
        runs += 1
    elapsed_s = time.perf_counter() - start
    energy = meter.stop() if meter else None
    after = read_state()
    stages = {name: distribution(values) for name, values in samples.items()}
    return LatencyReport(
        edgekd_version=edgekd.__version__,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        machine=describe_machine(),
        bundle_sha256=bundle_sha256,
        backend=chain.manifest.backend,
        backend_version=chain.manifest.backend_version,
        precision={name: stage.precision for name, stage in chain.manifest.stages.items()},
        input_px=_input_px(chain, pictures),
        settings=BenchSettings(
            pictures_px=tuple((picture.shape[1], picture.shape[0]) for picture in pictures),
            n_boxes=tuple(n_boxes),
            warm_up_runs=options.warm_up_runs,
            min_runs=options.min_runs,
            min_seconds=options.min_seconds,
            n_threads=options.n_threads,
            confidence=chain_options.detect.confidence,
        ),
        stages=stages,
        engines={name: {part: distribution(ms) for part, ms in parts.items()} for name, parts in engines.items()},
        per_box_ms=_per_box_ms(chain, pictures[0]),
        throughput_per_s=runs / elapsed_s,
        energy=energy,
        joules_per_picture=energy.joules / runs if energy else None,
        warnings=_warnings(stages, n_boxes, runs)
        + _size_warnings(chain, first_runs_ms)
        + state_warnings(before, after, is_jetson()),
        pictures="GPU" if chain.pictures.on_device else f"host {chain.pictures.reason}".rstrip(),
        before=before,
        after=after,
        samples_ms={name: tuple(round(value, 3) for value in values) for name, values in samples.items()},
        throughput=_throughput(chain, pictures, options, chain_options),
        first_runs_ms=tuple(first_runs_ms),
    )


def _throughput(
    chain: Chain, pictures: Sequence[UInt8Array], options: BenchOptions, chain_options: ChainOptions
) -> Throughput | None:
    if not options.n_chains:
        return None
    wish = ThroughputOptions(options.n_chains, options.min_runs, options.min_seconds)
    return measure_throughput(chain, pictures, wish, chain_options)


def _append(samples: dict[str, list[float]], times_ms: Mapping[str, float]) -> None:
    for name, value in times_ms.items():
        samples.setdefault(name, []).append(value)


def _per_box_ms(chain: Chain, picture: UInt8Array) -> float | None:
    """What one more box costs: the slope between 1 and 8 boxes, fastest of three runs each.

    None for a segmenter that takes no boxes from outside, whose number cannot be chosen.
    """
    if not chain.segmenter.takes_boxes:
        return None

    def fastest(n: int) -> float:
        boxes: Float32Array = np.tile(
            np.array([[0, 0, picture.shape[1] / 2, picture.shape[0] / 2]], np.float32), (n, 1)
        )
        times = [chain(picture, boxes=boxes).times_ms for _ in range(3)]
        return min(sum(t[name] for name in chain.segmenter.laps_per_box) for t in times)

    return (fastest(8) - fastest(1)) / 7


def _least_warm_ups(chain: Chain, n_pictures: int) -> int:
    """On a GPU the first run of every number of boxes makes a context and the second records a graph."""
    return 2 * n_pictures if BACKENDS[chain.manifest.backend].on_gpu else 0


def _input_px(chain: Chain, pictures: Sequence[UInt8Array]) -> dict[str, tuple[tuple[int, int], ...]]:
    """The (width, height) at which the pictures were fed, each once."""
    return {
        name: tuple(sorted({place(picture.shape[:2], spec).input_px[::-1] for picture in pictures}))
        for name, spec in chain.manifest.pipeline.picture_inputs().items()
    }


def _sizes_to_compile(chain: Chain, pictures: Sequence[UInt8Array]) -> list[tuple[int, int]]:
    """One picture size (height, width) for each combination of input sizes that the pictures lead to."""
    specs = chain.manifest.pipeline.picture_inputs().values()
    sizes = {picture.shape[:2] for picture in pictures}
    return list({tuple(place(size, spec).input_px for spec in specs): size for size in sorted(sizes)}.values())


def _size_warnings(chain: Chain, first_runs_ms: Sequence[float]) -> tuple[str, ...]:
    """Say what compilation costs where pictures of several sizes make a network compile several times."""
    n = len(first_runs_ms)
    if n < 2 or BACKENDS[chain.manifest.backend].one_size:
        return ()
    sizes = f"the pictures come in {n} input sizes, each compiled at its first picture ({sum(first_runs_ms):.0f} ms)"
    if n > KEPT_SIZES:
        return (f"{sizes}; only {KEPT_SIZES} stay compiled, so compilations are in the times: build with square",)
    return (f"{sizes}; that is not in the times, and a bundle built with square has one size",)


def _warnings(stages: Mapping[str, Distribution], n_boxes: Sequence[int], runs: int) -> tuple[str, ...]:
    found = []
    total = stages["total"]
    if len(n_boxes) == 1 and total.std_ms / total.mean_ms > UNSTABLE_CV:
        found.append(
            f"the total varies by {total.std_ms / total.mean_ms:.1%} (more than {UNSTABLE_CV:.1%}): "
            "stop other work and lock the clocks for stable numbers"
        )
    if runs < 100:
        found.append(f"p99 rests on {runs} runs, fewer than the 100 that it takes to trust it")
    if not any(n_boxes):
        found.append("no box was found, so the segmenter never ran; lower confidence or give other pictures")
    return tuple(found)
