"""Two bundles on one machine, run in turns: what disturbs one disturbs the other, and the interval becomes narrow."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edgekd.errors import InputError
from edgekd.measure.latency import BenchOptions
from edgekd.measure.samples import SpeedUp, speed_up
from edgekd.package_files import DEMO_PICTURE
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.sources import expand, read_picture


def compare_bundles(
    a: Path,
    b: Path,
    sources: Sequence[str | Path] = (),
    options: BenchOptions | None = None,
    chain_options: ChainOptions | None = None,
) -> dict[str, SpeedUp]:
    """Run both bundles on the same pictures, the order changing from round to round.

    Args:
        a, b: what `edgekd build-engine` wrote.
        sources: pictures and folders of pictures; none takes the shipped one.
        options: how long; the defaults when None. A run is one of both.
        chain_options: thresholds; the defaults when None.

    Returns:
        Speed-up of `b` by stage, for the stages that both have.

    Raises:
        InputError: a picture cannot be read.
        EdgekdError: as for `Chain.open`.
    """
    options, wish = options or BenchOptions(), chain_options or ChainOptions()
    pictures = [read_picture(path) for path in expand(sources or (DEMO_PICTURE,))]
    samples: list[dict[str, list[float]]] = [{}, {}]
    with Chain.open(a, options.n_threads) as first, Chain.open(b, options.n_threads) as second:
        chains = (first, second)
        for index in range(max(options.warm_up_runs, 2 * len(pictures))):
            for chain in chains:
                chain(pictures[index % len(pictures)], wish)
        start, runs = time.perf_counter(), 0
        while runs < options.min_runs or time.perf_counter() - start < options.min_seconds:
            for which in (0, 1) if runs % 2 == 0 else (1, 0):
                for name, ms in chains[which](pictures[runs % len(pictures)], wish).times_ms.items():
                    samples[which].setdefault(name, []).append(ms)
            runs += 1
    both = [name for name in samples[0] if name in samples[1] and min(samples[1][name]) > 0]
    if not both:
        raise InputError("the two bundles have no stage in common, expected bundles of the same kind or one detector")
    return {name: speed_up(samples[0][name], samples[1][name], is_paired=True) for name in both}
