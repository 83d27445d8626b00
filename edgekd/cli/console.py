"""Where the command line writes: results to stdout, progress and log to stderr, files in one step."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgekd.files import write_text
from edgekd.text import shown, shown_lines

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import TaskID

    from edgekd.runtime.mosaic import TileReport
    from edgekd.runtime.run import PictureReport
    from edgekd.train.finetune.averaged import Stage

__all__ = ["StepBar", "TileBar", "log", "out", "picture_line", "print_stream", "tracked", "write_json", "write_text"]


class _SafeConsole(Console):
    """Shows escapes instead of characters that could steer the terminal, since names come from outside."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does."""
        super().print(*(shown_lines(each) if isinstance(each, str) else each for each in objects), **options)


out = _SafeConsole(soft_wrap=True, markup=False, highlight=False)
log = _SafeConsole(stderr=True, soft_wrap=True, markup=False, highlight=False)


class TileBar:
    """A bar of the tiles of a large picture, on stderr; nothing is shown before the first tile."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("tiles"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=log, auto_refresh=False)  # as in StepBar
        self._task: TaskID | None = None

    def __enter__(self) -> TileBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def show(self, tile: TileReport) -> None:
        """Move on by a tile; after the last tile of a picture the bar disappears."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("tiles", total=tile.n_tiles)
        self._bar.update(self._task, completed=tile.index + 1, refresh=True)
        if tile.index + 1 == tile.n_tiles:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None


class StepBar:
    """A bar of the steps of a fine-tuning over all stages, on stderr."""

    def __init__(self, n_steps: int) -> None:
        from rich.progress import Progress

        # Drawn with each step: a thread of its own that finds no memory can hold Python's lock for ever.
        self._bar = Progress(console=log, auto_refresh=False)
        self._task = self._bar.add_task("starting", total=n_steps)

    def __enter__(self) -> StepBar:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def show(self, stage: Stage, step: int, losses: Mapping[str, float]) -> None:
        """Move on by a step."""
        text = f"stage {stage.number} step {step + 1}/{stage.n_steps} loss {losses['total']:.3f}"
        self._bar.update(self._task, advance=1, description=text, refresh=True)


def picture_line(report: PictureReport) -> str:
    """Say on one line what became of a picture."""
    if report.state == "failed":
        return shown(f"skipped: {report.reason}")
    if report.state == "kept":
        return shown(f"{report.name}: kept from the run that was interrupted")
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    time = f", {report.total_ms:.0f} ms" if report.total_ms else ""
    return shown(f"{report.name}: {counts or 'no objects'}{time}")


def print_stream(name: str, counts: Mapping[str, float]) -> None:
    """Say on one line how a stream ran."""
    out.print(f"{name}: " + ", ".join(f"{what} {value}" for what, value in counts.items()))


def tracked(text: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """Return what wraps a sequence to show a bar with this text on stderr."""
    from rich.progress import track

    return lambda items: track(items, text, console=log)


def write_json(path: Path | None, content: Any) -> None:
    """Write what a verb found as JSON, where a file was asked for; a pydantic record says itself how it looks."""
    if path is not None:
        whole = (
            content.model_dump_json(indent=2) if hasattr(content, "model_dump_json") else json.dumps(content, indent=1)
        )
        write_text(path, whole + "\n")
