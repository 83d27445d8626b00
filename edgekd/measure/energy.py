"""How many joules a piece of work took, from what the machine itself measures; None where it measures nothing.

    INA3221 on a Jetson (the board's input), NVML on a desktop GPU (the card), RAPL on a CPU (the package)

`start_meter()` gives a running meter, `stop()` its joules. Reading RAPL may need privileges; then there is no meter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

SAMPLE_S = 0.02
"""Between two readings of a sensor that gives power and not energy."""


@dataclass(frozen=True)
class Energy:
    """What a meter saw: joules and seconds, and which sensor said so."""

    joules: float
    seconds: float
    sensor: str


class CountingMeter:
    """A sensor that counts energy itself; it starts again at zero after `wraps_at_j`."""

    def __init__(self, sensor: str, read_j: Callable[[], float], wraps_at_j: float = float("inf")) -> None:
        self._sensor, self._read_j, self._wraps_at_j = sensor, read_j, wraps_at_j
        self._start_j, self._start_s = read_j(), time.perf_counter()

    def stop(self) -> Energy:
        """Return the energy since the start; a run longer than one turn of the counter is not seen as such."""
        joules = self._read_j() - self._start_j
        if joules < 0:
            joules += self._wraps_at_j
        return Energy(joules, time.perf_counter() - self._start_s, self._sensor)


class SamplingMeter:
    """A sensor that says the present power; a thread reads it and sums up with the trapezoidal rule."""

    def __init__(self, sensor: str, read_w: Callable[[], float], sample_s: float = SAMPLE_S) -> None:
        self._sensor, self._read_w, self._sample_s = sensor, read_w, sample_s
        self._samples = [(time.perf_counter(), read_w())]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def stop(self) -> Energy:
        """Stop the thread and return the energy since the start."""
        self._stopped.set()
        self._thread.join()
        self._samples.append((time.perf_counter(), self._read_w()))
        pairs = zip(self._samples, self._samples[1:], strict=False)
        joules = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)
        return Energy(joules, self._samples[-1][0] - self._samples[0][0], self._sensor)

    def _sample(self) -> None:
        while not self._stopped.wait(self._sample_s):
            self._samples.append((time.perf_counter(), self._read_w()))


Meter = CountingMeter | SamplingMeter


def start_meter(on_gpu: bool, root: Path = Path("/")) -> Meter | None:
    """Start the sensor that covers most of this machine, or return None.

    Args:
        on_gpu: the work runs on a GPU: RAPL, which sees the processor alone, is left out.
        root: of the file system.
    """
    return _ina3221(root) or (_nvml() if on_gpu else _rapl(root))


def _ina3221(root: Path) -> Meter | None:
    """Find the channel of the board's input, VDD_IN; on a board without one the channels of its rails are added."""
    for folder in sorted(root.glob("sys/class/hwmon/hwmon*")):
        if _text(folder / "name") != "ina3221":
            continue
        channels = {
            _text(path): path.name.removeprefix("in").removesuffix("_label") for path in folder.glob("in*_label")
        }
        rails = {name: channel for name, channel in channels.items() if name.startswith("VDD")}
        wanted = [rails["VDD_IN"]] if "VDD_IN" in rails else sorted(rails.values())
        if wanted and all((folder / f"curr{channel}_input").is_file() for channel in wanted):
            return SamplingMeter("INA3221", partial(_watts, folder, tuple(wanted)))
    return None


def _watts(folder: Path, channels: tuple[str, ...]) -> float:
    """Millivolts times milliamperes of the channels."""
    parts = [(_text(folder / f"in{each}_input"), _text(folder / f"curr{each}_input")) for each in channels]
    return sum(int(millivolts) * int(milliamperes) for millivolts, milliamperes in parts) * 1e-6


def _rapl(root: Path) -> Meter | None:
    """Read the counter of the first processor package."""
    folder = root / "sys/class/powercap/intel-rapl:0"
    try:
        wraps_at_j = int(_text(folder / "max_energy_range_uj")) * 1e-6
        return CountingMeter("RAPL", lambda: int(_text(folder / "energy_uj")) * 1e-6, wraps_at_j)
    except (OSError, ValueError):
        return None


def _nvml() -> Meter | None:
    """Read the counter of GPU 0, where NVML and a card that counts (Volta or newer) are there."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return CountingMeter("NVML", lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) * 1e-3)
    except pynvml.NVMLError:
        return None


def _text(path: Path) -> str:
    return path.read_text(errors="replace").strip()
