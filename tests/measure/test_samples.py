"""Intervals of speed-ups cover the truth and know what is uncertain; bundles take turns; chains share the work."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.measure import interleaved, samples
from edgekd.measure.latency import BenchOptions
from edgekd.measure.samples import speed_up
from edgekd.measure.throughput import ThroughputOptions, measure_throughput
from edgekd.runtime.chain import ChainOptions


def drifting(n, generator):
    """Runs that are like their neighbours, as those of a machine with other work."""
    return 1 + 0.5 * np.convolve(generator.normal(0, 1, n + 3), np.ones(4) / 4, "valid").clip(-1.5, 1.5)


N_PAIRS = 80
LEAST_COVERED = round(0.95 * N_PAIRS - 3 * (0.95 * 0.05 * N_PAIRS) ** 0.5)
"""Of intervals of 95 % that hold the truth: three standard deviations of the binomial below the mean."""


def n_covered(n_pairs=N_PAIRS):
    """In how many pairs of a true ratio of 1.25 the interval holds it."""
    generator, covered = np.random.default_rng(1), 0
    for _ in range(n_pairs):
        found = speed_up(1.25 * drifting(100, generator), drifting(100, generator), is_paired=False)
        covered += found.low <= 1.25 <= found.high
    return covered


def test_the_interval_covers_the_truth_about_as_often_as_it_says(monkeypatch):
    """An interval of blocks holds it as often as chance allows; one of single runs does not."""
    monkeypatch.setattr(samples, "N_RESAMPLES", 500)
    of_blocks = n_covered()
    monkeypatch.setattr(samples, "_block_length", lambda n: 1)
    of_single_runs = n_covered()
    assert of_single_runs < LEAST_COVERED <= of_blocks


def test_few_values_take_wider_percentiles():
    """Student's t: 2.262 for ten values, 1.984 for a hundred, each times sqrt(n / (n - 1)) on a normal distribution."""
    from statistics import NormalDist

    for n, quantile in ((10, 2.262), (20, 2.093), (100, 1.984)):
        low, high = samples.tail_percents(n)
        expected = 100 * NormalDist().cdf(-quantile * (n / (n - 1)) ** 0.5)
        assert low == pytest.approx(expected, rel=2e-2) and low + high == pytest.approx(100)
    assert samples.tail_percents(1e9)[0] == pytest.approx(2.5, abs=1e-3)
    assert 0 <= samples.tail_percents(0)[0] == samples.tail_percents(2)[0] < 1e-3


def test_turns_make_the_interval_narrow():
    generator = np.random.default_rng(2)
    disturbed = drifting(100, generator)
    a, b = 1.02 * disturbed, disturbed * generator.normal(1, 0.002, 100)
    apart, turns = speed_up(a, b, is_paired=False), speed_up(a, b, is_paired=True)
    assert turns.is_certain and 1.0 < turns.low < 1.02 < turns.high
    assert not apart.is_certain and apart.high - apart.low > 3 * (turns.high - turns.low)
    few = speed_up([2.0], [1.0], is_paired=False)
    assert few.ratio == 2 and few.low is None and not few.is_certain


class Turns:
    """A chain that says when it ran; `ms` is what it claims to have taken."""

    seen: list[str] = []

    def __init__(self, name, ms=1.0):
        self.name, self.ms, self.thread = name, ms, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def clone(self):
        return Turns(self.name, self.ms)

    def __call__(self, picture, options):
        Turns.seen.append(self.name)
        if self.ms < 0:
            raise InputError("this chain fails")
        assert self.thread in (None, threading.get_ident()) or self.thread == threading.main_thread().ident
        self.thread = threading.get_ident()
        time.sleep(0.002)
        return type("Result", (), {"times_ms": {"total": self.ms, f"only {self.name}": 1.0}})


def test_bundles_take_turns_and_change_the_order(monkeypatch, tmp_path):
    Turns.seen = []
    monkeypatch.setattr(interleaved.Chain, "open", lambda name, n_threads: Turns(name, {"a": 3.0, "b": 2.0}[name]))
    options = BenchOptions(warm_up_runs=0, min_runs=10, min_seconds=0)
    found = interleaved.compare_bundles("a", "b", (), options)
    assert "".join(Turns.seen) == "abab" + "abba" * 5
    assert list(found) == ["total"] and (found["total"].ratio, found["total"].low) == (1.5, 1.5)


def test_chains_at_once_share_the_pictures():
    Turns.seen = []
    picture = np.zeros((4, 4, 3), np.uint8)
    options = ThroughputOptions(n_chains=3, min_runs=30, min_seconds=0)
    found = measure_throughput(Turns("x"), [picture], options, ChainOptions())
    assert (found.n_chains, found.n_pictures) == (3, 30) and len(Turns.seen) == 30 + 3 * 2
    assert found.latency.n == 30 and found.pictures_per_s > 0
    with pytest.raises(InputError, match="n_chains is 0"):
        ThroughputOptions(n_chains=0)
    broken = Turns("x")
    broken.clone = lambda: broken
    with pytest.raises(InputError, match="this chain fails"):
        broken.ms = -1
        measure_throughput(broken, [picture], options, ChainOptions())
