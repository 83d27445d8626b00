"""Text from outside is shown on one line, without steering the terminal; plain text of any language stays."""

from __future__ import annotations

import pytest

from edgekd.text import shown, shown_lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("a\nb", "a\\x0ab"),
        ("\ud800", "\\ud800"),
        ("a\u202eb", "a\\u202eb"),
        ("Hafen, \u6e2f, caf\u00e9 \u2013 ok", "Hafen, \u6e2f, caf\u00e9 \u2013 ok"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, expected: str) -> None:
    assert shown(text) == expected
    shown(text).encode()


def test_lines_stay_lines() -> None:
    assert shown_lines("a\nb\x07") == "a\nb\\x07"
