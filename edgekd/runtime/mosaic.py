"""A large picture through a chain: windows in, the objects of the whole picture out, row of tiles by row of tiles.

reader thread: window of the next tile -> runner threads: chain -> journal -> seams -> objects that are decided

Memory holds a few tiles and the objects of one row of tiles, whatever the size of the picture.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import numpy as np

from edgekd.errors import InputError
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.journal import Journal
from edgekd.runtime.seams import Seams
from edgekd.runtime.tiles import TileGrid, TileOptions, Window, choose_grid
from edgekd.runtime.windows import Windows
from edgekd.types import ChainResult, Detections, Masks, UInt8Array

AHEAD = 2
"""Tiles that are read before a runner asks for them."""


@dataclass(frozen=True)
class MosaicOptions:
    """How a large picture is run.

    Attributes:
        chain: what each tile keeps; `max_boxes` counts per tile.
        tiles: how the picture is cut.
        masks: False finds boxes only.
        workers: tiles that are run at the same time, each with its own clone of the chain: while one waits for its
            network, the other prepares its picture or its masks.
    """

    chain: ChainOptions = field(default_factory=ChainOptions)
    tiles: TileOptions = field(default_factory=TileOptions)
    masks: bool = True
    workers: int = 2

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            InputError: `workers` is below 1.
        """
        if self.workers < 1:
            raise InputError(f"workers is {self.workers}, expected at least 1; give 2")


@dataclass(frozen=True)
class TileReport:
    """What became of one tile.

    Attributes:
        index, n_tiles: its place in the order of tiles, and how many there are.
        window: in pixels of the picture.
        n_objects: boxes found in it, before seams.
        state: `run`; `kept` in the journal of an interrupted run; `empty` where all pixels have one colour (nothing
            is run); `broken` where the file cannot be read.
        reason: why it is broken, one sentence.
    """

    index: int
    n_tiles: int
    window: Window
    n_objects: int
    state: Literal["run", "kept", "empty", "broken"]
    reason: str = ""


Report = Callable[[TileReport], None]
_Outcome = tuple[Detections, Masks | None, Literal["run", "kept", "empty", "broken"], str]


def run_mosaic(
    chain: Chain,
    picture: Windows,
    options: MosaicOptions | None = None,
    journal: Journal | None = None,
    report: Report = lambda tile: None,
) -> Iterator[ChainResult]:
    """Find the objects of a large picture.

    Args:
        chain: the bundle; it serves this run alone until the last result.
        picture: from `open_windows`.
        options: the defaults when None.
        journal: keeps finished tiles; those that it already holds are not run again.
        report: called after every tile, in order.

    Yields:
        Objects in pixels of the whole picture that no later tile can change, once per row of tiles. With `masks=False`
        the masks are empty windows.

    Raises:
        InputError: tiles that cannot be, or a journal on a full disk. A window that cannot be read is reported and
            left out.
    """
    options = options or MosaicOptions()
    grid = choose_grid(picture.size_px, chain.manifest.pipeline, options.tiles)
    seams = Seams(picture.size_px)
    per_row, names = len(grid.lefts_px), chain.manifest.pipeline.class_names
    for index, (window, outcome) in enumerate(_outcomes(chain, picture, grid, options, journal)):
        detections, masks, state, reason = outcome
        if journal is not None and state in ("run", "empty"):
            journal.add(index, detections, masks)
        if state != "broken":
            seams.add(window, detections, masks)
        report(TileReport(index, len(grid), window, len(detections), state, reason))
        if (index + 1) % per_row == 0:
            row = (index + 1) // per_row
            found, united = seams.take(grid.tops_px[row] if row < len(grid.tops_px) else None)
            yield ChainResult(found, united or _no_masks(picture.size_px, len(found)), names)


def collect(results: Iterable[ChainResult], size_px: tuple[int, int]) -> ChainResult:
    """Put the rows of `run_mosaic` together, the most confident object first.

    Args:
        results: at least one.
        size_px: (height, width) of the picture.
    """
    rows = list(results)
    detections = [row.detections for row in rows]
    confidence = np.concatenate([part.confidence for part in detections])
    order = np.argsort(-confidence, kind="stable")
    crops = [crop for row in rows for crop in row.masks.crops]
    turned = [part.corners for part in detections if part.corners is not None]
    corners = np.concatenate(turned) if turned else None
    return ChainResult(
        Detections(
            np.concatenate([part.xyxy for part in detections])[order],
            confidence[order],
            np.concatenate([part.class_id for part in detections])[order],
            None if corners is None else corners[order],
        ),
        Masks(
            size_px,
            np.concatenate([row.masks.windows for row in rows])[order],
            [crops[index] for index in order],
            np.concatenate([row.masks.predicted_iou for row in rows])[order],
        ),
        rows[0].class_names,
    )


def journal_key(chain: Chain, path: Path, options: MosaicOptions) -> str:
    """Name a run: the same picture, bundle and options give the same key; the number of workers does not matter."""
    stat = path.stat()
    parts = (
        str(path.absolute()),
        stat.st_size,
        stat.st_mtime_ns,
        chain.manifest.model_dump_json(),
        options.chain,
        options.tiles,
        options.masks,
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _outcomes(
    chain: Chain, picture: Windows, grid: TileGrid, options: MosaicOptions, journal: Journal | None
) -> Iterator[tuple[Window, _Outcome]]:
    """Yield every tile in order; the next ones are read and run meanwhile."""
    with _chains(chain, options.workers) as chains, _threads(1) as reader, _threads(options.workers) as runners:
        waiting: deque[tuple[Window, int, Future[_Outcome] | None]] = deque()

        def finish() -> tuple[Window, _Outcome]:
            window, index, future = waiting.popleft()
            if future is not None:
                return window, future.result()
            assert journal is not None
            return window, (*journal.get(index), "kept", "")

        for index, window in enumerate(grid):
            future = None
            if journal is None or index not in journal:
                pixels = reader.submit(picture.read, window)
                future = runners.submit(_run_tile, chains, pixels, options)
            waiting.append((window, index, future))
            if len(waiting) > options.workers + AHEAD:
                yield finish()
        while waiting:
            yield finish()


def _run_tile(chains: SimpleQueue[Chain], pixels: Future[UInt8Array], options: MosaicOptions) -> _Outcome:
    try:
        picture = pixels.result()
    except InputError as error:
        return *_nothing(), "broken", str(error)
    if (picture == picture[:1, :1]).all():
        return *_nothing(), "empty", ""
    chain = chains.get()
    try:
        if not options.masks:
            return chain.detect(picture, options.chain.detect), None, "run", ""
        result = chain(picture, options.chain)
        return result.detections, result.masks, "run", ""
    finally:
        chains.put(chain)


def _nothing() -> tuple[Detections, Masks | None]:
    return Detections.from_boxes(np.zeros((0, 4), np.float32)), None


def _no_masks(size_px: tuple[int, int], n: int) -> Masks:
    return Masks(size_px, np.zeros((n, 4), np.int32), [np.zeros((0, 0), np.bool_)] * n, np.zeros(n, np.float32))


@contextmanager
def _chains(chain: Chain, workers: int) -> Iterator[SimpleQueue[Chain]]:
    """The chain and its clones, one for each runner."""
    clones = [chain.clone() for _ in range(workers - 1)]
    ready: SimpleQueue[Chain] = SimpleQueue()
    for each in (chain, *clones):
        ready.put(each)
    try:
        yield ready
    finally:
        for clone in clones:
            clone.close()


@contextmanager
def _threads(n: int) -> Iterator[ThreadPoolExecutor]:
    """A pool that drops what has not started when the run ends early, and waits for what has."""
    pool = ThreadPoolExecutor(n)
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
