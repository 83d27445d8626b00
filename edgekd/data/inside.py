"""What a label file may say about the world outside: paths stay inside the data folder, texts are harmless.

Every reader of labels asks here, so that a data set from anywhere can neither open other files of this machine nor put
control characters on a terminal or into OpenCV.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgekd.errors import DataError, first_line

TOLERANCE = 0.01
"""How far a coordinate may leave the picture, as a fraction of its side.

Ultralytics refuses a label beyond one percent, and takes what is within: so do all readers here, and what passes once
passes everywhere. It covers tools that round to few digits or put the far edge a pixel outside.
"""

LARGEST_BYTES = 2 << 30
"""Label files beyond this size are refused: COCO's own largest has half a GB."""


def picture_inside(root: Path, name: str, where: str) -> Path:
    """Return the file `name` below `root`.

    Args:
        root: folder that pictures or labels may lie in.
        name: relative path, or an absolute one inside `root`.
        where: what named it, for the message: a file, with its line or entry.

    Raises:
        DataError: it leads out of the folder, by its name or over a link, or is not a file.
    """
    try:
        path = root / name
        resolved = path.resolve()
        if not resolved.is_relative_to(root.resolve()):
            raise DataError(
                f"{where} names {printable(name)!r}, which leads out of {root}; keep the files inside their folder, or "
                "name the folder that holds them"
            )
        if not resolved.is_file():
            state = "is not a plain file" if resolved.exists() else "does not exist"
            raise DataError(f"{where} names {printable(str(path))}, which {state}; check the folder of the pictures")
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{where} names {printable(name)[:80]!r}, which is not a path ({error})"[:300]) from error
    return path


def printable(text: str) -> str:
    """Return a text with every control character and lone surrogate escaped, so that it can be printed."""
    return "".join(
        c if unicodedata.category(c)[0] != "C" else c.encode("unicode_escape", "replace").decode() for c in text
    )


def checked_names(names: Iterable[object], where: Path) -> tuple[str, ...]:
    """Return class names as texts.

    Raises:
        DataError: there is none, one is empty or appears twice, or one has characters that cannot be shown.
    """
    texts = tuple(str(name) for name in names)
    for text in texts:
        if not text.strip() or len(text) > 200 or printable(text) != text:
            raise DataError(
                f"{where} has the class name {printable(text)[:60]!r}, expected 1 to 200 characters that can be shown"
            )
    repeated = [text for index, text in enumerate(texts) if text in texts[:index]]
    if repeated or not texts:
        found = f"names the class {repeated[0]!r} twice" if repeated else "names no class"
        raise DataError(f"{where} {found}; every class needs a name of its own")
    return texts


def read_text(path: Path, kind: str) -> str:
    """Read a label file of UTF-8 text.

    Args:
        path: the file.
        kind: what was expected, for the message, such as `COCO labels (.json)`.

    Raises:
        DataError: it is missing, no plain file, too large, unreadable or not UTF-8.
    """
    try:
        if not path.is_file():
            state = "is not a plain file" if path.exists() else "does not exist"
            raise DataError(f"{printable(str(path))} {state}, expected {kind}")
        if path.stat().st_size > LARGEST_BYTES:
            raise DataError(f"{path} has over {LARGEST_BYTES >> 30} GiB, expected {kind}; split it")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise DataError(f"{printable(str(path))[:200]} cannot be read ({reason}), expected {kind}"[:400]) from error


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: as `read_text`, and for what is not a JSON object.
    """
    try:
        content = json.loads(read_text(path, kind))
    except (ValueError, RecursionError) as error:
        reason = first_line(error)
        raise DataError(f"{path} is not a JSON file ({reason}), expected {kind}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a JSON {type(content).__name__}, expected {kind}")
    return content
