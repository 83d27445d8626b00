"""Option values that several verbs parse: sizes, lists of numbers, compute capabilities."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup

from edgekd.errors import InputError


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parse `640` or `1024x640` (width x height) into (height, width); None stays None.

    Raises:
        InputError: it is neither.
    """
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise InputError(f"the size is {text!r}, expected a side or WIDTHxHEIGHT in pixels, such as 640 or 1024x640")
    width, height = int(parts[0]), int(parts[-1])
    return height, width


def parse_numbers(text: str | None) -> tuple[int, ...]:
    """Parse `1,4,8` into numbers; None is none.

    Raises:
        InputError: a part is no number.
    """
    if not text:
        return ()
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise InputError(f"the list is {text!r}, expected numbers with commas between them, such as 1,4,8")
    return tuple(int(part) for part in parts)


def parse_sm(text: str | None) -> str | None:
    """Parse `89`, `8.9` or `sm_89` into a compute capability "8.9"; None stays None.

    Raises:
        InputError: it is none of these.
    """
    if text is None:
        return None
    digits = text.lower().removeprefix("sm_").replace(".", "")
    if not digits.isdigit() or not 2 <= len(digits) <= 3:
        raise InputError(f"the compute capability is {text!r}, expected one such as 87 or 8.9; give another --sm")
    return f"{int(digits[:-1])}.{digits[-1]}"


class DefaultGroup(TyperGroup):
    """A group that takes a first word which names no command as an argument of its command `default`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put `default` in front of arguments that do not start with a command's name."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["default", *args])

    def list_commands(self, ctx: Any) -> list[str]:
        """List what the user may type; `default` is never typed."""
        return [name for name in super().list_commands(ctx) if name != "default"]
