"""One place that writes what a benchmark found: `<theme>_<device>_<yyyymm>.json`, with the machine and the date."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

from edgekd.environment import describe_machine, device_slug
from edgekd.files import write_text

RESULTS = Path(__file__).parent / "results"


def result_path(theme: str, folder: Path = RESULTS) -> Path:
    """Return where this machine's result of this month goes; the newest file of a theme makes its table."""
    return folder / f"{theme}_{device_slug(describe_machine())}_{datetime.date.today():%Y%m}.json"


def write_result(theme: str, content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `content` (settings, results; values JSON can hold) below theme, date and machine; return the file.

    A `content` that was read from an earlier file gets this date and machine. An earlier result of the same month is
    replaced in one step; git keeps it, and `history.py` reads it there.
    """
    head: dict[str, Any] = {
        "theme": theme,
        "date": datetime.date.today().isoformat(),
        "machine": describe_machine().model_dump(mode="json"),
    }
    path = result_path(theme, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({**head, **content, **head}, indent=1) + "\n")
    return path
