"""The command `edgekd`: mounts the verbs and turns errors into one sentence and an exit code."""

from __future__ import annotations

import errno
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Annotated, Any

import typer

import edgekd
from edgekd.cli import bench, capi, data, distill, kernels, weights
from edgekd.cli.build_engine import build_engine, rollback
from edgekd.cli.calibrate import calibrate
from edgekd.cli.demo import demo
from edgekd.cli.doctor import doctor
from edgekd.cli.evaluate import evaluate
from edgekd.cli.export import export
from edgekd.cli.finetune import finetune
from edgekd.cli.inspect import inspect
from edgekd.cli.label import label
from edgekd.cli.run import run
from edgekd.cli.sign import new_key, sign
from edgekd.errors import EdgekdError, first_line, is_out_of_memory
from edgekd.text import shown_lines

app = typer.Typer(
    help="A detector and a promptable segmenter, from training to a small device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(edgekd.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="show and exit")] = False,
) -> None:
    """A detector and a promptable segmenter, from training to a small device."""


app.command("demo")(demo)
app.command("export")(export)
app.command("calibrate")(calibrate)
app.command("build-engine")(build_engine)
app.command("run")(run)
app.add_typer(bench.app, name="bench")
app.command("evaluate")(evaluate)
app.command("label")(label)
app.command("inspect")(inspect)
app.command("doctor")(doctor)
app.command("rollback")(rollback)
app.command("sign")(sign)
app.command("new-key")(new_key)
app.add_typer(weights.app, name="weights")
app.add_typer(distill.app, name="distill")
app.command("finetune")(finetune)
app.add_typer(data.app, name="data")
app.add_typer(kernels.app, name="kernels")
app.add_typer(capi.app, name="capi")


def main() -> None:
    """Run the command line; user errors are one sentence on stderr, bugs keep their traceback."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except EdgekdError as error:
        sys.exit(_say(f"edgekd: {_told(str(error))}", error.exit_code))
    except ModuleNotFoundError as error:
        from edgekd.environment import missing_module

        reason = missing_module(error, "this command")
        if reason is error:
            raise
        sys.exit(_say(f"edgekd: {reason}", 1))
    except SystemError as error:
        # What a C function says when a signal ended the Python function that it had called.
        if not isinstance(error.__cause__, SystemExit | KeyboardInterrupt):
            raise
        sys.exit(error.__cause__.code if isinstance(error.__cause__, SystemExit) else _interrupted())
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            sys.exit(_say("edgekd: more files are open than this process may have; raise the limit: ulimit -n 4096", 1))
        if not is_out_of_memory(error):
            raise
        error.__traceback__ = error.__context__ = None  # they hold what the command had in memory
        cure = "close other programs, or give smaller pictures, fewer jobs or a smaller batch"
        sys.exit(_say(f"edgekd: memory ran out ({first_line(error)}); {cure}", 1))
    except KeyboardInterrupt:
        sys.exit(_interrupted())


def with_flag(sentence: str, options: Mapping[str, str]) -> str:
    """Say in the words of the command line what a library function says of its arguments.

    Args:
        sentence: it begins with the name of an argument, as in "confidence is 2, expected ...", or has one in
            backticks, as in "...; give another `output`".
        options: argument -> flag, of the command that runs.
    """
    argument = sentence.split(" ", 1)[0]
    told = re.sub(r"`(\w+)`", lambda found: options.get(found[1], found[1]), sentence)
    return f"{told} (the option is {options[argument]})" if argument in options else told


def _told(sentence: str) -> str:
    """The sentence in the words of the command line; as it is where no memory is left to look these up."""
    try:
        return with_flag(sentence, _options_of(sys.argv[1:]))
    except MemoryError:
        return sentence


def _options_of(words: Sequence[str]) -> dict[str, str]:
    """The options of the command that `words` name: argument -> longest flag."""
    command: Any = typer.main.get_command(app)
    for word in words:
        children = getattr(command, "commands", {})
        command = children.get(word) or children.get("default") or command
    return {each.name: max(each.opts, key=len) for each in command.params if each.opts[0].startswith("-")}


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """End as an interrupt does, so that what is open is closed and temporary files are removed."""
    sys.exit(_say("edgekd: terminated, nothing half-written is left", 143))


def _interrupted() -> int:
    return _say("edgekd: interrupted, nothing half-written is left", 130)


def _say(sentence: str, exit_code: int) -> int:
    print(shown_lines(sentence), file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    main()
