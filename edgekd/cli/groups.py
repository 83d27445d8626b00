"""A command group with a default: `edgekd bench bundle/` beside `edgekd bench compare A B`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperGroup


class DefaultGroup(TyperGroup):
    """A group that takes a first word which names no command as an argument of its command `default`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Put `default` in front of arguments that do not start with a command's name."""
        return super().resolve_command(ctx, args if args and args[0] in self.commands else ["default", *args])

    def list_commands(self, ctx: Any) -> list[str]:
        """List what the user may type; `default` is never typed."""
        return [name for name in super().list_commands(ctx) if name != "default"]
