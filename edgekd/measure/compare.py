"""Two latency reports side by side; reports of unlike runs are refused."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from edgekd.errors import InputError
from edgekd.measure.latency import LatencyReport
from edgekd.measure.samples import SpeedUp, speed_up


def read_report(path: Path) -> LatencyReport:
    """Read a result file of `edgekd bench --json`.

    Raises:
        InputError: the file is missing or is not a latency report.
    """
    try:
        return LatencyReport.model_validate_json(path.read_text())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give a file of edgekd bench --json") from error
    except (ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a latency report; give a file of edgekd bench --json") from error


def unlike(a: LatencyReport, b: LatencyReport) -> list[str]:
    """Name what makes two reports incomparable: other pictures, boxes, threads, sizes or machine."""
    checks = {
        "machine": (a.machine.cpu, a.machine.gpu) == (b.machine.cpu, b.machine.gpu),
        "number of cores": a.machine.n_cores == b.machine.n_cores,
        "power mode": a.machine.power_mode == b.machine.power_mode,
        "place of preprocessing": a.pictures.split()[0] == b.pictures.split()[0],
        "pictures": a.settings.pictures_px == b.settings.pictures_px,
        "threads": a.settings.n_threads == b.settings.n_threads,
        "input sizes": a.input_px == b.input_px,
        "number of boxes": a.settings.n_boxes == b.settings.n_boxes,
    }
    return [name for name, same in checks.items() if not same]


def compare(a: LatencyReport, b: LatencyReport) -> dict[str, SpeedUp]:
    """Return the speed-up of `b` by stage, for the stages that both have; reports of old versions give no interval.

    Raises:
        InputError: the two runs are not comparable.
    """
    differences = unlike(a, b)
    if differences:
        raise InputError(f"the two reports differ in {', '.join(differences)}; bench both bundles the same way")
    return {name: _speed_up(a, b, name) for name in a.stages if name in b.stages and b.stages[name].p50_ms > 0}


def _speed_up(a: LatencyReport, b: LatencyReport, name: str) -> SpeedUp:
    times = [report.samples_ms.get(name, (report.stages[name].p50_ms,)) for report in (a, b)]
    return speed_up(times[0], times[1], is_paired=False)
