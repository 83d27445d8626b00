"""A camera of 25 frames per second: does the crop chain keep up, is a cut survived, does memory stay flat.

    python benchmarks/bench_stream.py --assets DIR

An HTTP server in a process of its own sends JPEG frames of 1280x720 that show five objects of NWPU VHR-10 and move a
little; `edgekd.runtime.run_stream.follow`, which is `edgekd run` on a camera, reads them. Each bundle gets the same
stream; the processor time per result says what remains when others use the machine. Then the server falls silent for
five seconds in the middle of a run. Then 20,000 frames come as fast as they are asked for from a source in memory, and
the resident set of the process is noted on the way.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mosaics import validation_set
from result_file import result_path, write_result

from edgekd.data.labels import LabelledPicture
from edgekd.environment import describe_machine
from edgekd.runtime.chain import Chain
from edgekd.runtime.results.writer import ResultOptions
from edgekd.runtime.run import RunOptions
from edgekd.runtime.run_stream import StreamWatch, StreamWish, follow
from edgekd.runtime.sources import read_picture
from edgekd.runtime.streams import Stream, StreamCounts, StreamFrame, StreamOptions

FPS, SIZE_PX, N_OBJECTS, MOVES = 25, (720, 1280), 5, 25
CUT_S, N_MEMORY_FRAMES, SMALL_PX = 5.0, 20_000, (96, 96)
MAX_AGE_P95_MS, MAX_GROWTH_MIB = 100.0, 8.0
BUNDLES = {
    "fp32-640x384": ("fp32", (384, 640)),
    "auto-640x384": ("auto", (384, 640)),
    "fp32-448x256": ("fp32", (256, 448)),
    "fp32-320x192": ("fp32", (192, 320)),
    "fp32-256x160": ("fp32", (160, 256)),
}
"""Precision, and (height, width) of the detector's input in pixels; `auto` is run where the processor has bf16."""

ARMS = {
    "auto-640x384": None, "fp32-640x384": None, "fp32-448x256": None, "fp32-320x192": None, "fp32-256x160": None,
    "fp32-320x192, masks re-used": 0.9, "fp32-256x160, masks re-used": 0.9,
}  # fmt: skip
"""Which bundle follows the camera, and the IoU above which it takes a mask again."""

PARTS = ("keeps_up", "cut", "memory")


def main() -> None:
    arguments = parse()
    path = result_path("stream", arguments.output)
    report: dict[str, Any] = json.loads(path.read_text()) if arguments.part and path.is_file() else {}
    kept = {} if "keeps_up" in (arguments.part or PARTS) else report.get("settings", {})
    report["settings"] = settings(arguments) | {name: kept[name] for name in ("seconds",) if name in kept}
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        build_bundles(work)
        arms = [arm for arm in ARMS if not arm.startswith("auto") or "avx512_bf16" in describe_machine().isa]
        frames = moving_frames(arguments.assets)
        parts = {
            "keeps_up": lambda: {arm: keeps_up(work, arm, frames, arguments.seconds) for arm in arms},
            "cut": lambda: cut(work, frames),
            "memory": lambda: memory(work, arguments.frames),
        }
        for part in arguments.part or PARTS:
            load = os.getloadavg()[0]
            report[part] = parts[part]()
            report.setdefault("load_average_before", {})[part] = load
            report["holds"] = verdict(report)
            print(json.dumps({part: report[part]}), flush=True)
            write_result("stream", report, arguments.output)
    print(path, json.dumps(report["holds"]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with data/")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each bundle")
    parser.add_argument("--frames", type=int, default=N_MEMORY_FRAMES, help="of the memory part")
    parser.add_argument("--work", type=Path, help="keep bundles here, and take those that are there")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this again; default: everything")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "fps": FPS, "size_px": SIZE_PX, "n_objects": N_OBJECTS, "seconds": arguments.seconds, "cut_s": CUT_S,
        "memory_frames": arguments.frames, "memory_input_px": SMALL_PX, "tracking": True,
        "video": False, "bundles": BUNDLES, "reuse_masks_iou": ARMS,
        "cores": len(os.sched_getaffinity(0)), "models": "shipped detector and crop segmenter",
    }  # fmt: skip


def build_bundles(work: Path) -> None:
    """The shipped crop chain in every form, and one of a small detector input for many frames."""
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.models.crop_set import copy_shipped_crop
    from edgekd.package_files import default_models

    if not (work / "models").is_dir():
        copy_shipped_crop(work / "models", default_models())
    for name, (precision, size_px) in (BUNDLES | {"small": ("fp32", SMALL_PX)}).items():
        if not (work / name).is_dir():
            options = BuildOptions(precision=precision, detector_px=size_px)
            build_bundle(work / "models", work / name, options, lambda line: None)


def moving_frames(assets: Path) -> list[bytes]:
    """JPEG frames that walk over a validation picture with five objects, enlarged to cover the frame."""
    picture = next(p for p in validation_set(assets).pictures if len(p) == N_OBJECTS and _is_wide(p))
    height, width = SIZE_PX
    scale = max(height / picture.size_px[0], width / picture.size_px[1])
    large = cv2.resize(read_picture(picture.path), None, fx=scale, fy=scale)
    padded = cv2.copyMakeBorder(large, 0, MOVES, 0, MOVES, cv2.BORDER_REFLECT)
    steps = [*range(MOVES), *range(MOVES, 0, -1)]
    return [cv2.imencode(".jpg", padded[s : s + height, s : s + width])[1].tobytes() for s in steps]


def _is_wide(picture: LabelledPicture) -> bool:
    return 1.4 < picture.size_px[1] / picture.size_px[0] < 2


class Camera:
    """The server's process; `silent` stops the frames and cuts the connections."""

    def __init__(self, frames: list[bytes]) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self.silent = context.Event()
        self._process = context.Process(target=serve, args=(frames, theirs, self.silent), daemon=True)
        self._process.start()
        self.address = f"http://127.0.0.1:{ours.recv()}/camera.mjpg"

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()


def serve(frames: list[bytes], pipe: Any, silent: Any) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if silent.is_set():
                self.send_error(503)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            start, index = time.perf_counter(), 0
            while not silent.is_set():
                data = frames[index % len(frames)]
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                try:
                    self.wfile.write(head.encode() + data + b"\r\n")
                except OSError:
                    return
                index += 1
                time.sleep(max(0.0, start + index / FPS - time.perf_counter()))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    pipe.send(server.server_address[1])
    server.serve_forever()


class Limited:
    """A source that ends: after so many seconds of a stream, or so many frames."""

    def __init__(self, source: Any, seconds: float = float("inf"), frames: float = float("inf")) -> None:
        self.source, self._seconds, self._frames = source, seconds, frames
        self.counts, self.name, self.fps = source.counts, source.name, source.fps
        self.live, self.has_video = source.live, source.has_video
        self.resident_mib: list[float] = []

    def __enter__(self) -> Limited:
        self.source.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.source.__exit__(*error)

    def __iter__(self) -> Iterator[StreamFrame]:
        start = time.perf_counter()
        for n, frame in enumerate(self.source, 1):
            yield frame
            if n % 1000 == 0:
                self.resident_mib.append(_resident_mib())
            if n >= self._frames or time.perf_counter() - start > self._seconds:
                return


class InMemory:
    """Frames that are there at once: a bright square walks over noise, one pixel in ten frames."""

    name, fps, live, has_video = "memory", 25.0, False, False

    def __init__(self) -> None:
        self.counts = StreamCounts()
        self._noise = np.random.default_rng(0).integers(0, 90, (*SMALL_PX, 3), np.uint8)

    def __enter__(self) -> InMemory:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[StreamFrame]:
        while True:
            picture = self._noise.copy()
            left = self.counts.n_read // 10 % 60
            picture[30:60, left : left + 30] = 230
            yield StreamFrame(picture, self.counts.n_read, time.perf_counter())
            self.counts.n_read += 1


def watched(
    work: Path, bundle: str, source: Any, reuse_masks: float | None = None, threads: int | None = None
) -> dict[str, Any]:
    """Follow a source to its end; the numbers of the end, and how many objects a frame had."""
    numbers: dict[str, Any] = {}
    wish = StreamWish(files=ResultOptions(overlays=False), track=True, reuse_masks=reuse_masks)
    with Chain.open(work / bundle, threads) as chain:
        chain.warm_up(SIZE_PX)
        start = time.process_time()
        follow(chain, source, work, RunOptions(), wish, StreamWatch(finished=lambda _, counts: numbers.update(counts)))
        numbers["processor_ms_per_result"] = (time.process_time() - start) * 1e3 / max(1, numbers["n_results"])
    lines = [json.loads(line) for line in (work / f"{source.name}.jsonl").read_text().splitlines()]
    return numbers | {"mean_n_objects": float(np.mean([len(line["objects"]) for line in lines]))}


def keeps_up(work: Path, arm: str, frames: list[bytes], seconds: float) -> dict[str, Any]:
    with Camera(frames) as camera:
        return watched(work, arm.split(",")[0], Limited(Stream(camera.address), seconds), ARMS[arm])


def cut(work: Path, frames: list[bytes]) -> dict[str, Any]:
    """The camera is gone from the third second to the eighth of twelve and more."""
    with Camera(frames) as camera:
        threading.Timer(3, camera.silent.set).start()
        threading.Timer(3 + CUT_S, camera.silent.clear).start()
        source = Limited(Stream(camera.address, StreamOptions(stall_s=1.0)), 3 + CUT_S + 5)
        numbers = watched(work, "fp32-320x192", source)
    lines = (work / "stream.jsonl").read_text().splitlines()
    return numbers | {"n_lines": len(lines), "last_frame": json.loads(lines[-1])["frame"]}


def memory(work: Path, n_frames: int) -> dict[str, Any]:
    """Resident set after every thousand frames, masks taken again; growth is from the first fifth to the end."""
    source = Limited(InMemory(), frames=n_frames)
    numbers = watched(work, "small", source, reuse_masks=0.9, threads=1)
    settled = source.resident_mib[len(source.resident_mib) // 5]
    return numbers | {
        "resident_mib": [round(value, 1) for value in source.resident_mib],
        "growth_mib": round(source.resident_mib[-1] - settled, 2),
    }


def _resident_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def verdict(report: dict[str, Any]) -> dict[str, bool]:
    holds = {}
    for bundle, numbers in report.get("keeps_up", {}).items():
        holds[f"{bundle}: age p95 under 100 ms"] = numbers["age_p95_ms"] < MAX_AGE_P95_MS
    if "cut" in report:
        holds["a cut of five seconds is survived"] = (
            report["cut"]["n_cuts"] >= 1 and report["cut"]["n_results"] == report["cut"]["n_lines"]
        )
    if "memory" in report:
        holds["memory is flat"] = report["memory"]["growth_mib"] <= MAX_GROWTH_MIB
    return holds


if __name__ == "__main__":
    main()
