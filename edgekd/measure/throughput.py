"""How many pictures per second go through when successive ones overlap: some chains at once, each in a thread.

While one picture is in a network, another is uploaded or prepared and the masks of a third are finished. The chains are
clones: they share the weights, each has its own buffers and, on a GPU, its own streams.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count

from pydantic import BaseModel, ConfigDict

from edgekd.errors import InputError
from edgekd.measure.samples import Distribution, distribution
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.types import UInt8Array


class Throughput(BaseModel):
    """What so many chains at once reached; `latency` is of single pictures, from the call to the answer."""

    model_config = ConfigDict(frozen=True)

    n_chains: int
    n_pictures: int
    pictures_per_s: float
    latency: Distribution


@dataclass(frozen=True)
class ThroughputOptions:
    """How long to measure.

    Attributes:
        n_chains: chains at work at once; two overlap the work around networks with networks.
        min_runs, min_seconds: both must be reached by all chains together.
    """

    n_chains: int = 2
    min_runs: int = 20
    min_seconds: float = 5.0

    def __post_init__(self) -> None:
        """Check the number of chains.

        Raises:
            InputError: there is none.
        """
        if self.n_chains < 1:
            raise InputError(f"n_chains is {self.n_chains}, expected 1 or more; try 2")


def measure_throughput(
    chain: Chain, pictures: Sequence[UInt8Array], options: ThroughputOptions, chain_options: ChainOptions
) -> Throughput:
    """Let clones of a chain take pictures in turn until the time is over.

    Args:
        chain: an open bundle; it is one of the chains at work.
        pictures: (H, W, 3) uint8 BGR each, at least one.
        options: how many chains and how long.
        chain_options: thresholds.

    Raises:
        EdgekdError: what a chain raised, after all have stopped.
    """
    with ExitStack() as stack:
        clones = (stack.enter_context(chain.clone()) for _ in range(options.n_chains - 1))
        crew = _Crew([chain, *clones], pictures, options, chain_options)
        for each in crew.chains:  # contexts, graphs and caches of every chain, before the clock starts
            for picture in (*pictures, *pictures):
                each(picture, chain_options)
        crew.work()
    return Throughput(
        n_chains=options.n_chains,
        n_pictures=len(crew.times_ms),
        pictures_per_s=len(crew.times_ms) / crew.seconds,
        latency=distribution(crew.times_ms),
    )


class _Crew:
    """Chains that take numbered pictures; all start together, and the first error stops all."""

    def __init__(
        self, chains: list[Chain], pictures: Sequence[UInt8Array], options: ThroughputOptions, wish: ChainOptions
    ) -> None:
        self.chains, self._pictures, self._options, self._wish = chains, pictures, options, wish
        self._numbers, self._stopped = count(), threading.Event()
        self._errors: list[BaseException] = []
        self.times_ms: list[float] = []
        self.seconds = 0.0

    def work(self) -> None:
        """Run until enough pictures are through."""
        threads = [threading.Thread(target=self._serve, args=(chain,)) for chain in self.chains]
        self._start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds = time.perf_counter() - self._start
        if self._errors:
            raise self._errors[0]

    def _serve(self, chain: Chain) -> None:
        try:
            while not self._stopped.is_set():
                number, start = next(self._numbers), time.perf_counter()
                if number >= self._options.min_runs and start - self._start >= self._options.min_seconds:
                    break
                chain(self._pictures[number % len(self._pictures)], self._wish)
                self.times_ms.append((time.perf_counter() - start) * 1e3)
        except BaseException as error:
            self._errors.append(error)
            self._stopped.set()
