"""The public API is what `tests/api_signatures.txt` says; a change is deliberate and stands in the changelog.

After a deliberate change: `python tests/test_api.py` writes the file again.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import edgekd

SNAPSHOT = Path(__file__).with_name("api_signatures.txt")


def signatures() -> str:
    lines = [f"load{inspect.signature(edgekd.load)}"]
    for name in edgekd.__all__:
        if name != "load":
            lines += lines_of(name, getattr(edgekd, name))
    return re.sub(r" at 0x[0-9a-f]+", "", "\n".join(lines)) + "\n"


def lines_of(name: str, item: Any) -> list[str]:
    if not inspect.isclass(item):
        return [f"{name}{inspect.signature(item)}"]
    if issubclass(item, Exception):
        return [f"{name}({', '.join(base.__name__ for base in item.__bases__)}) exit {getattr(item, 'exit_code', '')}"]
    if hasattr(item, "model_fields"):
        lines = [f"{name}.{field}: {info.annotation}" for field, info in item.model_fields.items()]
    elif dataclasses.is_dataclass(item):
        lines = [f"{name}.{field.name}: {field.type}" for field in dataclasses.fields(item)]
    else:
        lines = [f"{name}{inspect.signature(item)}"]
    for key, value in vars(item).items():
        if key.startswith("_") or (hasattr(item, "model_fields") and key.startswith("model_")):
            continue
        value = getattr(value, "__func__", value)
        if inspect.isfunction(value):
            lines.append(f"{name}.{key}{inspect.signature(value)}")
    return lines


def test_the_public_api_is_the_recorded_one() -> None:
    assert signatures() == SNAPSHOT.read_text(), (
        "the public API changed: add a line to CHANGELOG.md under [Unreleased], then run: python tests/test_api.py"
    )


def test_every_public_name_is_documented() -> None:
    for name in edgekd.__all__:
        item = getattr(edgekd, name)
        assert inspect.getdoc(item), name
        if inspect.isfunction(item):
            assert all(hint != "" for hint in item.__annotations__.values())


if __name__ == "__main__":
    SNAPSHOT.write_text(signatures())
