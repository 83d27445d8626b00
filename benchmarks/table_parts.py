"""What every table of `render_tables.py` is made of: the newest result of a theme, Markdown, a line for the machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def newest(theme: str) -> dict[str, Any] | None:
    """Return the newest result of a theme; None when nothing was measured."""
    path = newest_file(theme)
    return json.loads(path.read_text()) if path else None


def newest_file(theme: str) -> Path | None:
    """Find the newest `<theme>_<device>_<yyyymm>.json`; of one month the machine with the most instruction sets."""

    def rank(path: Path) -> tuple[str, int, str]:
        result = json.loads(path.read_text())
        return path.stem.rsplit("_", 2)[2], len(result["machine"]["isa"]), result.get("date", "")

    return max((path for path in RESULTS.glob("*.json") if theme_of(path) == theme), key=rank, default=None)


def theme_of(path: Path) -> str:
    return path.stem.rsplit("_", 2)[0]


def markdown(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def machine_line(result: dict[str, Any]) -> str:
    """Name the machine and the libraries of a result in one line."""
    machine = result["machine"]
    wanted = ("openvino", "onnxruntime", "torch", "ultralytics")
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in wanted if name in machine["versions"])
    isa = ", ".join(machine["isa"])
    return f"{machine['cpu']}, {machine['n_cores']} cores ({isa}), {versions}."
