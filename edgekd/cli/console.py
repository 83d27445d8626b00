"""Where the command line writes: results to stdout, progress and log to stderr, files in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgekd.files import write_bytes as write_file
from edgekd.files import write_text
from edgekd.text import shown, shown_lines

if TYPE_CHECKING:
    from rich.progress import TaskID

    from edgekd.runtime.mosaic import TileReport
    from edgekd.runtime.run import PictureReport

__all__ = ["TileBar", "log", "out", "picture_line", "tracked", "write_file", "write_text"]


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
        self._bar = Progress(*columns, console=log)
        self._task: TaskID | None = None

    def __enter__(self) -> TileBar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._task is not None:
            self._bar.stop()

    def show(self, tile: TileReport) -> None:
        """Move on by a tile; the last one of a picture takes the bar away."""
        if self._task is None:
            self._bar.start()
            self._task = self._bar.add_task("tiles", total=tile.n_tiles)
        self._bar.update(self._task, completed=tile.index + 1)
        if tile.index + 1 == tile.n_tiles:
            self._bar.stop()
            self._bar.remove_task(self._task)
            self._task = None


def picture_line(report: PictureReport) -> str:
    """Say on one line what became of a picture."""
    if report.state == "failed":
        return shown(f"skipped: {report.reason}")
    if report.state == "kept":
        return shown(f"{report.name}: kept from the run that was interrupted")
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    time = f", {report.total_ms:.0f} ms" if report.total_ms else ""
    return shown(f"{report.name}: {counts or 'no objects'}{time}")


def tracked(text: str) -> Callable[[Sequence[Any]], Iterable[Any]]:
    """Return what wraps a sequence to show a bar with this text on stderr."""
    from rich.progress import track

    return lambda items: track(items, text, console=log)
