"""A stream through a chain until it ends: cameras, addresses, tracked videos and watched folders.

source -> frames -> chain -> tracks -> one JSON line per frame, and an overlay video
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekd.errors import InputError
from edgekd.runtime.chain import Chain
from edgekd.runtime.results.writer import ResultOptions
from edgekd.runtime.reuse import ReusedMasks
from edgekd.runtime.run import RunOptions, chain_options, detect_options, large_enough
from edgekd.runtime.stream_files import StreamFiles
from edgekd.runtime.streams import Stream, summary
from edgekd.runtime.tracks import Tracks
from edgekd.runtime.watch import WatchedFolder

Counts = Mapping[str, float | int]


@dataclass(frozen=True, kw_only=True)
class StreamWatch:
    """Who is told of a stream.

    Attributes:
        note: told what happens on the way: files that are skipped, an interrupt.
        finished: told the name of the stream and its numbers at the end, however it ends.
    """

    note: Callable[[str], None] = lambda line: None
    finished: Callable[[str, Counts], None] = lambda name, counts: None


@dataclass(frozen=True, kw_only=True)
class StreamWish:
    """How a stream is run.

    Attributes:
        files: what is to be written; a stream has lines and an overlay video, and nothing else.
        track: number the objects, in lines and video.
        watch: the source is a folder that is being filled.
        reuse_masks: a mask is taken again where the new box agrees so much (IoU) with the box of the mask; None makes
            every mask anew.
        n_threads: CPU threads; None leaves them to the backend.
        public_key: whose signature the bundle must carry; None asks for none.
    """

    files: ResultOptions
    track: bool = False
    watch: bool = False
    reuse_masks: float | None = None
    n_threads: int | None = None
    public_key: str | None = None

    def __post_init__(self) -> None:
        """Refuse files that only pictures have.

        Raises:
            InputError: one is asked for.
        """
        for argument in ("json_file", "formats", "preview"):
            if getattr(self.files, argument):
                raise InputError(
                    f"{argument} was given for a stream, which writes NAME.jsonl and an overlay video; leave it out"
                )


def run_stream(
    bundle: Path, sources: Sequence[str], folder: Path, options: RunOptions, wish: StreamWish, watch: StreamWatch
) -> None:
    """Open a bundle and the one source, and run it.

    Raises:
        InputError: the source cannot be opened or is not alone, or as for `follow`.
    """
    if len(sources) > 1:
        raise InputError(f"{sources[0]} came with {len(sources) - 1} other sources, expected one stream alone")
    if options.given is not None:
        raise InputError("boxes were given for a stream, whose frames have no labels; leave them out")
    if options.min_area:
        raise InputError("min_area was given for a stream, whose frames lie on no map; give a min_area_px")
    with Chain.open(bundle, wish.n_threads, wish.public_key) as chain:
        stream = WatchedFolder(Path(sources[0]), watch.note) if wish.watch else Stream(sources[0])
        follow(chain, stream, folder, options, wish, watch)


def follow(
    chain: Chain,
    stream: Stream | WatchedFolder,
    folder: Path,
    options: RunOptions,
    wish: StreamWish,
    watch: StreamWatch,
) -> None:
    """Run a stream to its end or to Ctrl-C; what was finished is kept.

    Raises:
        InputError: the source falls silent for good, a class is not the bundle's, or masks are to be re-used that are
            not made.
    """
    if wish.reuse_masks is not None and options.boxes_only:
        raise InputError("reuse_masks was given with boxes_only, expected one of them; leave one out")
    options = replace(options, detect=detect_options(options, chain.manifest.pipeline.class_names))
    wanted = chain_options(options)
    reused = None if wish.reuse_masks is None else ReusedMasks(chain, wish.reuse_masks)
    tracks = Tracks(stream.fps, options.detect.confidence) if wish.track else None  # its packages take a second to load
    start = time.perf_counter()
    with stream, StreamFiles(folder, stream.name, stream.fps, wish.files.overlays and stream.has_video) as files:
        try:
            for frame in stream:
                result = large_enough((reused or chain)(frame.picture, wanted), options)
                seconds = frame.decoded_at if stream.live else frame.index / stream.fps
                numbers = tracks.update(result.detections, seconds) if tracks else None
                age_ms = frame.age_ms()
                files.add(frame, result, numbers, age_ms)
                stream.counts.add_result(age_ms)
        except KeyboardInterrupt:
            watch.note("stopped; everything up to here is written")
        finally:
            masks = {"n_masks": reused.n_masks, "n_masks_reused": reused.n_reused} if reused else {}
            watch.finished(stream.name, summary(stream.counts, time.perf_counter() - start) | masks)
