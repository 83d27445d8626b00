"""Text from outside, such as class names, notes and file names: shown safely, refused where it is recorded."""

from __future__ import annotations

import unicodedata

_UNSAFE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories: control characters, lone surrogates, line and paragraph separators."""
_TURNS = set(range(0x202A, 0x202F)) | set(range(0x2066, 0x206A))
"""Characters that turn the direction of writing, and so show a text that is not there."""


def is_unsafe(character: str) -> bool:
    """Return whether a character may steer a terminal, break a line, or cannot be encoded."""
    return unicodedata.category(character) in _UNSAFE or ord(character) in _TURNS


def shown(text: str) -> str:
    r"""Return a text for a terminal or a picture, on one line: an unsafe character becomes its escape, such as \x1b."""
    if text.isprintable():
        return text
    return "".join(_escape(character) if is_unsafe(character) else character for character in text)


def shown_lines(text: str) -> str:
    """Return a text of several lines for a terminal; each line as `shown` gives it."""
    return "\n".join(shown(line) for line in text.split("\n"))


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
