"""`edgekd distill recipe`: what recipes there are, what their fields do, and one of them as a file to change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def recipe(
    name: Annotated[str | None, typer.Argument(help="a recipe's name, or a JSON file to check")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="JSON file to write it to")] = None,
) -> None:
    """List the recipes and explain their fields, or print one as JSON to change and give to --recipe."""
    from edgekd.cli.console import out, write_text
    from edgekd.train.distill.recipes import load_recipe

    if name is None and output is None:
        _explain()
        return
    text = load_recipe(name or "default").model_dump_json(indent=1)
    if output is None:
        out.print(text)
        return
    write_text(output, text + "\n")
    out.print(f"{output}: change it and give it to: edgekd distill --recipe {output}")


def _explain() -> None:
    from rich.table import Table

    from edgekd.cli.console import out
    from edgekd.train.distill.recipes import PURPOSES, explain_fields

    recipes = Table("recipe", "for")
    for name, purpose in PURPOSES.items():
        recipes.add_row(name, purpose)
    fields = Table("field", "default", "what it does")
    for row in explain_fields():
        fields.add_row(*row)
    out.print(recipes)
    out.print(fields)
