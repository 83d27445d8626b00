"""Meters on sensors that are written here: a Jetson's, a processor's, a card's, and none."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekd.measure import energy


def write(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name).write_text(f"{value}\n")


def test_a_jetson_measures_its_input_or_adds_its_rails(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/hwmon/hwmon3"
    write(folder, name="ina3221", in2_label="VDD_CPU", in2_input="5000", curr2_input="1000")
    write(folder, in3_label="sum of shunt voltages", in3_input="7", curr3_input="7")
    meter = energy.start_meter(on_gpu=True, root=tmp_path)
    found = meter.stop()
    assert found.sensor == "INA3221" and found.joules == pytest.approx(5 * found.seconds)
    write(folder, in1_label="VDD_IN", in1_input="19000", curr1_input="500")
    found = energy.start_meter(on_gpu=True, root=tmp_path).stop()
    assert found.joules == pytest.approx(9.5 * found.seconds), "the input alone covers the rails"


def test_power_that_changes_is_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    watts = iter([10.0, *[30.0] * 1000])
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(energy.time, "perf_counter", lambda: next(clock))
    found = energy.SamplingMeter("test", lambda: next(watts), sample_s=60).stop()
    assert (found.joules, found.seconds) == (40.0, 2.0)


def test_a_processors_counter_may_begin_again(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/powercap/intel-rapl:0"
    write(folder, energy_uj="9000000", max_energy_range_uj="10000000")
    meter = energy.start_meter(on_gpu=False, root=tmp_path)
    write(folder, energy_uj="2000000")
    found = meter.stop()
    assert found.sensor == "RAPL" and found.joules == pytest.approx(3.0)


def test_a_card_counts_millijoules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = iter([5000, 12000])
    fake = SimpleNamespace(
        NVMLError=RuntimeError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda index: "card",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(counter),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    found = energy.start_meter(on_gpu=True, root=tmp_path).stop()
    assert found.sensor == "NVML" and found.joules == pytest.approx(7.0)


def test_a_machine_without_sensors_has_no_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.start_meter(on_gpu=True, root=tmp_path) is None
    assert energy.start_meter(on_gpu=False, root=tmp_path) is None
