"""Milliseconds of the steps of one run: laps by name, in the order in which they were taken."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Stopwatch:
    """Runs from the moment it is made; `lap` names the time since the last lap."""

    def __init__(self) -> None:
        self._times_ms: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the milliseconds since the last lap to those of `name`."""
        now = time.perf_counter()
        self._times_ms[name] = self._times_ms.get(name, 0.0) + (now - self._last) * 1e3
        self._last = now

    def stop(self) -> Mapping[str, float]:
        """Return the milliseconds per name, and `total` since the start."""
        return {**self._times_ms, "total": (time.perf_counter() - self._start) * 1e3}
