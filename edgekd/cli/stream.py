"""Streams of `edgekd run`: cameras, addresses, tracked videos and watched folders, until they end or Ctrl-C."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.errors import InputError

if TYPE_CHECKING:
    from edgekd.runtime.chain import Chain
    from edgekd.runtime.results.writer import ResultOptions
    from edgekd.runtime.run import RunOptions
    from edgekd.runtime.streams import Stream
    from edgekd.runtime.watch import WatchedFolder


@dataclass(frozen=True)
class StreamOutput:
    """How a stream is run.

    Attributes:
        files: what is to be written; a stream has lines and an overlay video, and nothing else.
        track: number the objects, in lines and video.
        watch: the source is a folder that is being filled.
        threads: CPU threads; None leaves them to the backend.
    """

    files: ResultOptions
    track: bool = False
    watch: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        """Refuse files that only pictures have.

        Raises:
            InputError: the command asks for them.
        """
        of_pictures = {
            "--json": self.files.json_file,
            "--formats": self.files.formats,
            "--preview": self.files.preview,
        }
        if asked := [flag for flag, value in of_pictures.items() if value]:
            raise InputError(
                f"{asked[0]} was given for a stream, which writes NAME.jsonl and an overlay video; leave {asked[0]} out"
            )


def run_stream(bundle: Path, sources: list[str], folder: Path, options: RunOptions, output: StreamOutput) -> None:
    """Open a bundle and the one source, and run it.

    Raises:
        InputError: the source cannot be opened or is not alone, or as for `follow`.
    """
    from edgekd.cli.console import log
    from edgekd.runtime.chain import Chain
    from edgekd.runtime.streams import Stream
    from edgekd.runtime.watch import WatchedFolder

    if len(sources) > 1 or options.given is not None:
        raise InputError(f"{sources[0]} is a stream or beside one; give one stream alone, without --boxes")
    with Chain.open(bundle, output.threads) as chain:
        stream = WatchedFolder(Path(sources[0]), log.print) if output.watch else Stream(sources[0])
        follow(chain, stream, folder, options, output)


def follow(
    chain: Chain, stream: Stream | WatchedFolder, folder: Path, options: RunOptions, output: StreamOutput
) -> None:
    """Run a stream to its end; frames per second, dropped frames and ages are printed then, after Ctrl-C too.

    Raises:
        InputError: the source falls silent for good, or a class is not the bundle's; what was finished is kept.
    """
    from edgekd.cli.console import log, out
    from edgekd.runtime.run import detect_options, run_one
    from edgekd.runtime.sources import Frame
    from edgekd.runtime.stream_files import StreamFiles
    from edgekd.runtime.streams import summary
    from edgekd.runtime.tracks import Tracks

    options = replace(options, detect=detect_options(options, chain.manifest.pipeline.class_names))
    start = time.perf_counter()
    with stream, StreamFiles(folder, stream.name, stream.fps, output.files.overlays and stream.has_video) as files:
        tracks = Tracks(stream.fps, options.detect.confidence) if output.track else None
        try:
            for frame in stream:
                result = run_one(chain, Frame(stream.name, folder, frame.picture, frame.index), options)
                seconds = frame.decoded_at if stream.live else frame.index / stream.fps
                numbers = tracks.update(result.detections, seconds) if tracks else None
                age_ms = frame.age_ms()
                stream.counts.ages_ms.append(age_ms)
                files.add(frame, result, numbers, age_ms)
        except KeyboardInterrupt:
            log.print("stopped; everything up to here is written")
        finally:
            counts = summary(stream.counts, time.perf_counter() - start)
            out.print(f"{stream.name}: " + ", ".join(f"{name} {value}" for name, value in counts.items()))
