"""The result file of an attack: machine, versions, settings, counts and what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekd.environment import describe_machine


def write_report(
    path: Path, settings: dict[str, Any], counts: dict[str, Any], findings: list[str], took_s: float
) -> None:
    """Write what was tried and what came of it.

    Args:
        path: the JSON file.
        settings: what the script was called with.
        counts: name of a part -> how often what happened.
        findings: one line for each thing that went wrong.
        took_s: wall time.
    """
    report = {
        "machine": describe_machine().model_dump(),
        "settings": settings,
        "counts": counts,
        "findings": findings,
        "took_s": round(took_s, 1),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
