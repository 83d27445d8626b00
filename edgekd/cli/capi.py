"""`edgekd capi build`, and `edgekd capi --cflags --libs` for makefiles that know neither CMake nor pkg-config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="libedgekd: the chain behind a C header.")


@app.callback(invoke_without_command=True)
def flags(
    context: typer.Context,
    cflags: Annotated[bool, typer.Option("--cflags", help="print the compiler's flags")] = False,
    libs: Annotated[bool, typer.Option("--libs", help="print the linker's flags")] = False,
    prefix: Annotated[Path | None, typer.Option(help="where it was installed, as -o of build")] = None,
) -> None:
    """Compile C programs against libedgekd: cc $(edgekd capi --cflags) main.c $(edgekd capi --libs)."""
    from edgekd.capi.build import compiler_flags, default_prefix, linker_flags
    from edgekd.cli.console import out

    if context.invoked_subcommand is not None:
        return
    if not cflags and not libs:
        out.print(context.get_help())
        raise typer.Exit
    home = (prefix or default_prefix()).absolute()
    words = (compiler_flags(home) if cflags else []) + (linker_flags(home) if libs else [])
    out.print(" ".join(words))


@app.command("build")
def build(
    output: Annotated[Path | None, typer.Option("-o", "--output", help="folder to install to")] = None,
) -> None:
    """Compile libedgekd and the backend modules of this machine, and install them."""
    from edgekd.capi.build import build_library, default_prefix
    from edgekd.cli.console import log, out

    with log.status("compiling libedgekd"):
        library = build_library((output or default_prefix()).absolute())
    modules = sorted(path.stem.removeprefix("libedgekd_") for path in library.parent.glob("libedgekd_*.so"))
    log.print(f"backends: {', '.join(modules) or 'none, their headers were not found'}")
    out.print(str(library))
