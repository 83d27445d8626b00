"""What a device is doing while it is measured: clocks, temperatures, and whether something holds it back.

`read_state()` is called before and after a bench. It reads what Linux and NVIDIA document and needs no privileges; what
a machine does not show is left out.

    clocks         cpufreq and devfreq in sysfs; on a card nvidia-smi
    fixed clocks   the lowest and the highest allowed clock are the same: what `jetson_clocks` and `nvidia-smi -lgc` do
    temperatures   thermal zones in sysfs; on a card nvidia-smi
    held back      over-current events of a Jetson (oc*_event_cnt), throttle counters of an x86 processor, reasons that
                   a card names
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

# Reasons of nvidia-smi that hold a card back; the others are idleness and limits that the user chose.
CARD_REASONS = {0x8: "power brake or hardware slowdown", 0x20: "heat, by the driver", 0x40: "heat, by the hardware"}
CARD_REASONS |= {0x4: "power limit", 0x80: "power brake"}
HOTTER_C = 10.0
"""From the start to the end of a bench; more says that the device was cold at the start."""


class Clock(BaseModel):
    """Megahertz now, and the limits within which the governor may choose."""

    model_config = ConfigDict(frozen=True)

    now_mhz: float
    low_mhz: float | None = None
    high_mhz: float | None = None

    @property
    def is_fixed(self) -> bool:
        """Whether the governor has no choice."""
        return self.low_mhz is not None and self.low_mhz == self.high_mhz


class DeviceState(BaseModel):
    """One look at the device; `held_back` counts since the machine started, or is 1 for what a card says now."""

    model_config = ConfigDict(frozen=True)

    clocks: dict[str, Clock] = {}
    temperatures_c: dict[str, float] = {}
    held_back: dict[str, int] = {}

    @property
    def clocks_are_fixed(self) -> bool | None:
        """Whether all clocks that have limits are fixed; None where none shows them."""
        limited = [clock.is_fixed for clock in self.clocks.values() if clock.high_mhz is not None]
        return all(limited) if limited else None


Ask = Callable[[Sequence[str]], str]


def read_state(root: Path = Path("/"), ask: Ask | None = None) -> DeviceState:
    """Read everything that this machine shows.

    Args:
        root: of the file system.
        ask: runs a command and returns what it printed, "" where it cannot; None asks this machine.
    """
    card = _card(ask or _ask)
    return DeviceState(
        clocks=_processor_clocks(root) | _devfreq_clocks(root) | card.clocks,
        temperatures_c=_temperatures(root) | card.temperatures_c,
        held_back=_over_current(root) | _processor_throttles(root) | card.held_back,
    )


def state_warnings(before: DeviceState, after: DeviceState, is_jetson: bool) -> tuple[str, ...]:
    """Say in sentences what makes the numbers between two looks doubtful."""
    found = []
    for name, count in after.held_back.items():
        if count > before.held_back.get(name, 0) or name.startswith("card: "):
            found.append(f"the device was held back during the measurement ({name}); cool it or lower the power mode")
    hotter = {name: value - before.temperatures_c.get(name, value) for name, value in after.temperatures_c.items()}
    name = max(hotter, key=lambda each: hotter[each], default="")
    if name and hotter[name] > HOTTER_C:
        found.append(f"{name} became {hotter[name]:.0f} degrees hotter; measure longer, or warm up first")
    if is_jetson and before.clocks_are_fixed is False:
        found.append("the clocks are not fixed, so the governor is measured too; run: sudo jetson_clocks")
    return tuple(found)


def _processor_clocks(root: Path) -> dict[str, Clock]:
    """The first processor of each cpufreq policy; sysfs says kilohertz."""
    clocks = {}
    for folder in sorted(root.glob("sys/devices/system/cpu/cpufreq/policy*")):
        now, low, high = (_number(folder / f"scaling_{each}_freq") for each in ("cur", "min", "max"))
        if now is not None:
            clocks[f"cpu {folder.name.removeprefix('policy')}"] = _clock(1e-3, now, low, high)
    return clocks


def _devfreq_clocks(root: Path) -> dict[str, Clock]:
    """The GPU (and other engines) of a Jetson; sysfs says hertz."""
    clocks = {}
    for folder in sorted(root.glob("sys/class/devfreq/*")):
        now, low, high = (_number(folder / f"{each}_freq") for each in ("cur", "min", "max"))
        if now is not None and "gpu" in folder.name.lower() + _text(folder / "device/of_node/name").lower():
            clocks["gpu"] = _clock(1e-6, now, low, high)
    memory = _number(root / "sys/kernel/debug/bpmp/debug/clk/emc/rate")  # shown to root alone
    if memory is not None:
        clocks["memory"] = Clock(now_mhz=memory * 1e-6)
    return clocks


def _clock(mhz: float, now: float, low: float | None, high: float | None) -> Clock:
    limits = [None if value is None else round(value * mhz, 1) for value in (low, high)]
    return Clock(now_mhz=round(now * mhz, 1), low_mhz=limits[0], high_mhz=limits[1])


def _temperatures(root: Path) -> dict[str, float]:
    """Thermal zones by their type; a zone that is asleep answers with an error or a number below freezing."""
    found = {}
    for folder in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        value = _number(folder / "temp")
        if value is not None and value > 0:
            found[_text(folder / "type") or folder.name] = round(value * 1e-3, 1)
    return found


def _over_current(root: Path) -> dict[str, int]:
    """Events in which the power supply of a Jetson made it slower."""
    files = sorted(root.glob("sys/class/hwmon/hwmon*/oc*_event_cnt"))
    counts = {path.name.removesuffix("_event_cnt"): _number(path) for path in files}
    return {f"over-current {name}": int(count) for name, count in counts.items() if count is not None}


def _processor_throttles(root: Path) -> dict[str, int]:
    """Events in which an x86 core became slower because of heat, all cores together."""
    files = root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count")
    counts = [int(count) for path in files if (count := _number(path)) is not None]
    return {"heat of the processor": sum(counts)} if counts else {}


def _card(ask: Ask) -> DeviceState:
    """The first card that nvidia-smi shows; the name of the reasons changed with driver 535."""
    for reasons in ("clocks_event_reasons.active", "clocks_throttle_reasons.active"):
        query = f"--query-gpu=clocks.sm,clocks.mem,temperature.gpu,{reasons}"
        line = ask(("nvidia-smi", query, "--format=csv,noheader,nounits")).strip().splitlines()[:1]
        words = [word.strip() for word in line[0].split(",")] if line else []
        try:
            clocks = {"card": Clock(now_mhz=float(words[0])), "card memory": Clock(now_mhz=float(words[1]))}
            bits = int(words[3], 16)
            held = {f"card: {name}": 1 for bit, name in CARD_REASONS.items() if bits & bit}
            return DeviceState(clocks=clocks, temperatures_c={"card": float(words[2])}, held_back=held)
        except (IndexError, ValueError):
            continue
    return DeviceState()


def _ask(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (subprocess.SubprocessError, OSError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""
