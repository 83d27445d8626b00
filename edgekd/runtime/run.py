"""Many pictures through a chain into a folder of results: what `edgekd run` does.

sources -> frames -> chain (its clones, where several pictures run at a time) -> filter -> ResultWriter
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError
from edgekd.model_set import ImageInput
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.given import GivenBoxes
from edgekd.runtime.large import Large, LargeOptions, Watch, open_source, run_large
from edgekd.runtime.oriented import boxes_of
from edgekd.runtime.results.maps import pixel_area
from edgekd.runtime.results.writer import ResultOptions, ResultWriter
from edgekd.runtime.segment import MaskOptions
from edgekd.runtime.sources import VIDEO_SUFFIXES, Frame, expand, frames
from edgekd.types import ChainResult


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What is looked for in every picture, and how many are run at a time.

    Attributes:
        detect, mask: thresholds, as for a call of the chain.
        boxes_only: leave the masks out.
        classes: names of the classes that are kept; empty keeps all.
        class_confidence: lowest confidence of a class, by name, instead of `detect.confidence`.
        min_area_px: objects with a smaller mask (box, with `boxes_only`) are left out.
        min_area: the same in square units of the map, such as square metres; every picture needs a georeference.
        jobs: pictures that run at the same time, each on its own clone of the chain.
        large: what happens to large pictures.
        given: boxes of a person instead of the detector's; pictures are then run whole.
    """

    detect: DetectOptions = field(default_factory=DetectOptions)
    mask: MaskOptions = field(default_factory=MaskOptions)
    boxes_only: bool = False
    classes: tuple[str, ...] = ()
    class_confidence: Mapping[str, float] = field(default_factory=dict)
    min_area_px: int = 0
    min_area: float = 0.0
    jobs: int = 1
    large: LargeOptions = field(default_factory=LargeOptions)
    given: GivenBoxes | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: a value is out of its range.
        """
        for name, least in (("min_area_px", self.min_area_px), ("min_area", self.min_area)):
            if not 0 <= least < math.inf:
                raise InputError(f"{name} is {least}, expected 0 or more")
        if self.jobs < 1:
            raise InputError(f"jobs is {self.jobs}, expected at least 1")
        if self.given and (self.classes or self.class_confidence or self.boxes_only or self.large.tile != "off"):
            raise InputError(
                "boxes were given with classes, class_confidence, boxes_only or tile, expected tile off and no other"
            )
        for name, value in self.class_confidence.items():
            if not 0 < value < 1:
                raise InputError(f"class_confidence of {name!r} is {value}, expected a number between 0 and 1")


@dataclass(frozen=True)
class PictureReport:
    """What became of one picture or frame.

    Attributes:
        name: of its files.
        state: `run`; `kept` from an interrupted run; `failed` when it cannot be read.
        counts: objects per class name, the most frequent first.
        total_ms: of the chain.
        reason: why it failed, or which parts of a large picture are left out: one sentence.
    """

    name: str
    state: Literal["run", "kept", "failed"]
    counts: Mapping[str, int] = field(default_factory=dict)
    total_ms: float = 0.0
    reason: str = ""


_Work = Callable[[], Frame | Large]
_Outcome = tuple[Frame, ChainResult] | Large | PictureReport


def run_pictures(
    chain: Chain,
    sources: Sequence[str | Path],
    folder: str | Path,
    options: RunOptions | None = None,
    results: ResultOptions | None = None,
    watch: Watch | None = None,
) -> Iterator[PictureReport]:
    """Run pictures, folders of pictures and videos, and write what is found as it comes.

    Args:
        chain: an open bundle; it serves this run alone until the last report.
        sources: files and folders.
        folder: where results go; see `ResultWriter` for what happens to earlier ones.
        options: what is looked for; the defaults when None.
        results: what is written; the defaults when None.
        watch: told when an earlier run is continued or replaced, and of the tiles of large pictures.

    Yields:
        One report per picture or frame, in order, after its files are written. A picture that cannot be read is
        reported and left out.

    Raises:
        InputError: a source does not exist, the only one cannot be read, an option cannot be, or the folder cannot take
            the results.
    """
    options, results, watch = options or RunOptions(), results or ResultOptions(), watch or Watch()
    results = replace(
        results,
        boxes_only=options.boxes_only,
        masks=results.masks and not options.boxes_only,
        oriented=chain.manifest.pipeline.head.is_oriented and not options.given,
    )
    names = options.given.class_names if options.given else chain.manifest.pipeline.class_names
    options = replace(options, detect=detect_options(options, names))
    paths = expand(sources)
    if options.given:
        options.given.check(paths)
    with ResultWriter(folder, names, results, paths, run_key(chain, options, results)) as writer:
        if writer.n_kept:
            watch.note(f"{folder}: goes on with the run that was interrupted, {writer.n_kept} pictures are kept")
        if writer.n_replaced:
            watch.note(f"{folder}: {writer.n_replaced} files of an earlier run are replaced")
        works = _works(paths, writer, chain.manifest.pipeline.detector_input, options.large)
        for outcome in _outcomes(chain, works, options):
            if isinstance(outcome, PictureReport):
                if outcome.state == "failed" and len(paths) == 1:
                    raise InputError(outcome.reason)
                yield outcome
            elif isinstance(outcome, Large):
                yield _run_large(chain, outcome, options, writer, watch)
            else:
                frame, result = outcome
                name = writer.add(frame, result)
                yield PictureReport(name, "run", counts_of(result), result.times_ms.get("total", 0.0))


def check_whole(reports: Iterable[PictureReport]) -> None:
    """Check that every source of a run was read as a whole.

    Raises:
        InputError: one was not; what was found in the others is written.
    """
    if failures := [report.reason for report in reports if report.reason]:
        raise InputError(f"{len(failures)} of the sources could not be read as a whole (first: {failures[0]})")


def detect_options(options: RunOptions, class_names: Sequence[str]) -> DetectOptions:
    """Return the detector's thresholds with the wish per class.

    Raises:
        InputError: the bundle has no class of such a name.
    """
    for name in (*options.classes, *options.class_confidence):
        if name not in class_names:
            shown = ", ".join(class_names[:8]) + (", ..." if len(class_names) > 8 else "")
            raise InputError(f"the bundle has no class {name!r}, it knows {shown}")
    if not options.classes and not options.class_confidence:
        return options.detect
    wanted = options.classes or class_names
    lowest = options.detect.confidence
    return replace(
        options.detect,
        class_confidence=tuple(
            options.class_confidence.get(name, lowest) if name in wanted else 1.0 for name in class_names
        ),
    )


def run_key(chain: Chain, options: RunOptions, results: ResultOptions) -> str:
    """Name a run: the same bundle and options give the same key; the number of jobs and the sources do not matter."""
    parts = (chain.manifest.model_dump_json(), replace(options, jobs=1), replace(results, json_file=None))
    return hashlib.sha256(repr(parts).encode("utf-8", "surrogatepass")).hexdigest()


def counts_of(result: ChainResult) -> dict[str, int]:
    """Return the number of objects per class name, the most frequent first."""
    ids, counts = np.unique(result.detections.class_id, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {result.class_names[int(ids[index])]: int(counts[index]) for index in order}


def run_one(chain: Chain, frame: Frame, options: RunOptions) -> ChainResult:
    """Run one picture as `options` say; `detect` must hold the wish per class already, see `detect_options`."""
    wanted = chain_options(options)
    pixel = pixel_area(frame.path) if options.min_area else 0.0
    if options.given:
        result = options.given.segment(chain, frame.path, frame.picture, wanted)
    else:
        result = chain(frame.picture, wanted)
    return large_enough(result, options, pixel)


def chain_options(options: RunOptions) -> ChainOptions:
    """Return what the chain is asked for; `detect` must hold the wish per class already."""
    return ChainOptions(options.detect, options.mask, masks=not options.boxes_only)


def large_enough(result: ChainResult, options: RunOptions, pixel: float = 0.0) -> ChainResult:
    """Leave out what is smaller than `min_area_px`, or than `min_area` where a pixel has an area of `pixel` there."""
    if not options.min_area_px and not options.min_area:
        return result
    areas = _areas_px(result, options.boxes_only)
    return result[(areas >= options.min_area_px) & (areas * pixel >= options.min_area)]


def _run_large(chain: Chain, large: Large, options: RunOptions, writer: ResultWriter, watch: Watch) -> PictureReport:
    """Run a large picture on a clone, since other pictures may be at work; its journal goes when all was read."""
    frame = Frame(large.path.stem, large.path, np.zeros((0, 0, 3), np.uint8))
    name = writer.name_of(frame)
    journal = f"{name}.tiles.jsonl"
    writer.announce((journal,))
    with contextlib.closing(large.windows), contextlib.closing(chain.clone()) as clone:
        pixel = pixel_area(large.path) if options.min_area else 0.0
        wanted = (chain_options(options), options.large)
        result, broken = run_large(clone, large, wanted, writer.folder / journal, watch)
        result = large_enough(result, options, pixel)
        writer.add_large(frame, large.windows, result)
    if not broken:
        (writer.folder / journal).unlink()
    return PictureReport(name, "run", counts_of(result), reason=broken)


def _areas_px(result: ChainResult, boxes_only: bool) -> NDArray[np.float64]:
    if not boxes_only:
        return result.masks.areas_px().astype(np.float64)
    if result.detections.corners is not None:
        return np.asarray(boxes_of(result.detections.corners)[:, 2:4].prod(1), np.float64)
    sides = result.detections.xyxy[:, 2:] - result.detections.xyxy[:, :2]
    return np.asarray(sides.prod(1), np.float64)


def _works(
    paths: Sequence[Path], writer: ResultWriter, spec: ImageInput, large: LargeOptions
) -> Iterator[_Work | PictureReport]:
    """Yield what is to be read and run: pictures are read where they run, frames of a video here, in order."""
    for path in paths:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from _video_works(path, writer)
        elif writer.is_kept(path):
            yield PictureReport(path.stem, "kept")
        else:
            yield lambda path=path: open_source(path, spec, large)  # type: ignore[misc]


def _video_works(path: Path, writer: ResultWriter) -> Iterator[_Work | PictureReport]:
    try:
        for frame in frames(path):
            if writer.is_kept(path, frame.index):
                yield PictureReport(frame.name, "kept")
            else:
                yield lambda frame=frame: frame  # type: ignore[misc]
    except InputError as error:
        yield PictureReport(path.stem, "failed", reason=str(error))


def _outcomes(chain: Chain, works: Iterator[_Work | PictureReport], options: RunOptions) -> Iterator[_Outcome]:
    """Run in order; with several jobs the next ones are read and run meanwhile."""
    if options.jobs == 1:
        for work in works:
            yield work if isinstance(work, PictureReport) else _outcome(chain, work, options)
        return
    clones = [chain.clone() for _ in range(options.jobs - 1)]
    free: SimpleQueue[Chain] = SimpleQueue()
    for each in (chain, *clones):
        free.put(each)
    pool = ThreadPoolExecutor(options.jobs)
    waiting: deque[Future[_Outcome] | PictureReport] = deque()
    try:
        for work in works:
            report = isinstance(work, PictureReport)
            waiting.append(work if report else pool.submit(_outcome_on_free, free, work, options))  # type: ignore[arg-type]
            if len(waiting) > options.jobs:
                yield _finished(waiting.popleft())
        while waiting:
            yield _finished(waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        for clone in clones:
            clone.close()


def _finished(waiting: Future[_Outcome] | PictureReport) -> _Outcome:
    return waiting if isinstance(waiting, PictureReport) else waiting.result()


def _outcome_on_free(free: SimpleQueue[Chain], work: _Work, options: RunOptions) -> _Outcome:
    chain = free.get()
    try:
        return _outcome(chain, work, options)
    finally:
        free.put(chain)


def _outcome(chain: Chain, work: _Work, options: RunOptions) -> _Outcome:
    """Read and run one picture; one that cannot be read becomes a report."""
    try:
        frame = work()
    except InputError as error:
        return PictureReport("", "failed", reason=str(error))
    return frame if isinstance(frame, Large) else (frame, run_one(chain, frame, options))
