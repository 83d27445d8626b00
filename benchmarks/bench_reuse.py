"""Masks of a stream that are taken again: what that costs in IoU, and what it saves in milliseconds.

    python benchmarks/bench_reuse.py --assets DIR

Labelled validation pictures of NWPU VHR-10 with three to eight objects become short streams of 1280x720, as JPEG with
the noise of a sensor: `still` shows one place, `walking` moves by one pixel per frame. The same crop chain masks every
frame anew and with `edgekd.runtime.reuse` at several limits; both are compared with the moved labels and with each
other. Milliseconds are of the processor, both cores together, so that they hold on a machine that others use too.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from bench_stream import SIZE_PX, build_bundles
from mosaics import validation_set
from result_file import write_result

from edgekd.data.labels import LabelledPicture
from edgekd.measure import coco_metrics as coco
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.reuse import NEW_AFTER_FRAMES, ReusedMasks
from edgekd.runtime.sources import read_picture
from edgekd.types import ChainResult

BUNDLE, LIMITS = "fp32-640x384", (0.95, 0.9, 0.8)
N_PICTURES, N_FRAMES, NOISE = 4, 20, 4.0
MOVES_PX = {"still": 0, "walking": 1}
FOUND_IOU = 0.5


@dataclass(frozen=True)
class Film:
    """Frames, and the mask of every label in the first one; frame i shows them `step_px * i` further left and up."""

    frames: list[np.ndarray]
    labels: list[np.ndarray]
    step_px: int

    def label(self, object_: int, frame: int) -> np.ndarray:
        """The mask of a label as a frame shows it."""
        shift, (height, width) = self.step_px * frame, SIZE_PX
        return self.labels[object_][shift : shift + height, shift : shift + width]


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        build_bundles(work)
        chosen = [p for p in validation_set(arguments.assets).pictures if 3 <= len(p) <= 8 and _is_wide(p)][:N_PICTURES]
        with Chain.open(work / BUNDLE, arguments.threads) as chain:
            chain.warm_up(SIZE_PX)
            results = {}
            for motion, step_px in MOVES_PX.items():
                films = [film_of(picture, step_px, seed) for seed, picture in enumerate(chosen)]
                results[motion] = measure(chain, films)
                print(motion, results[motion], flush=True)
    settings = {
        "bundle": BUNDLE, "size_px": SIZE_PX, "n_pictures": len(chosen), "n_frames": N_FRAMES, "noise": NOISE,
        "limits": LIMITS, "new_after_frames": NEW_AFTER_FRAMES, "threads": arguments.threads,
        "models": "shipped detector and crop segmenter", "milliseconds": "processor time per frame, JPEG not counted",
    }  # fmt: skip
    print(write_result("reuse", {"settings": settings, "results": results}, arguments.output))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with data/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, help="keep bundles here, and take those that are there")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def _is_wide(picture: LabelledPicture) -> bool:
    return 1.3 < picture.size_px[1] / picture.size_px[0] < 2.2


def film_of(picture: LabelledPicture, step_px: int, seed: int) -> Film:
    """Enlarge a picture to more than the frame, and walk over it."""
    rng, (height, width) = np.random.default_rng(seed), SIZE_PX
    margin = step_px * N_FRAMES
    scale = max((height + margin) / picture.size_px[0], (width + margin) / picture.size_px[1])
    large = cv2.resize(read_picture(picture.path), None, fx=scale, fy=scale)
    frames = []
    for index in range(N_FRAMES):
        shift = step_px * index
        view = large[shift : shift + height, shift : shift + width]
        noisy = np.clip(view + rng.normal(0, NOISE, view.shape), 0, 255).astype(np.uint8)
        frames.append(cv2.imdecode(cv2.imencode(".jpg", noisy)[1], cv2.IMREAD_COLOR))
    size_px = large.shape[1::-1]
    masks = [cv2.resize(picture.mask(i), size_px, interpolation=cv2.INTER_NEAREST) > 0 for i in range(len(picture))]
    return Film(frames, masks, step_px)


def measure(chain: Chain, films: list[Film]) -> dict[str, Any]:
    """Every mask anew, and each limit: IoU with the labels, IoU with the new masks, processor time."""
    options = ChainOptions()
    fresh = [follow(film, lambda frame: chain(frame, options)) for film in films]
    report: dict[str, Any] = {"every mask anew": score(films, fresh)}
    for limit in LIMITS:
        runs, n_masks, n_reused = [], 0, 0
        for film in films:
            reused = ReusedMasks(chain, limit)
            runs.append(follow(film, lambda frame, find=reused: find(frame, options)))
            n_masks, n_reused = n_masks + reused.n_masks, n_reused + reused.n_reused
        agreement = np.concatenate([agree(a, b) for run, new in zip(runs, fresh, strict=True)
                                    for a, b in zip(run[0], new[0], strict=True)])  # fmt: skip
        report[f"re-used at {limit}"] = score(films, runs) | {
            "part_reused": n_reused / n_masks,
            "mean_iou_with_new_masks": float(agreement.mean()),
            "p05_iou_with_new_masks": float(np.percentile(agreement, 5)),
        }
    return report


def follow(film: Film, find: Callable[[np.ndarray], ChainResult]) -> tuple[list[ChainResult], float]:
    """Results of the frames, and processor milliseconds per frame."""
    start = time.process_time()
    results = [find(frame) for frame in film.frames]
    return results, (time.process_time() - start) * 1e3 / len(film.frames)


def score(films: list[Film], runs: list[tuple[list[ChainResult], float]]) -> dict[str, float]:
    """Mean IoU of the masks with the labels that a box found, and the time."""
    ious = [
        iou
        for film, (results, _) in zip(films, runs, strict=True)
        for index, result in enumerate(results)
        for iou in label_ious(film, index, result)
    ]
    return {
        "mean_iou_with_labels": float(np.mean(ious)),
        "n_matched": len(ious),
        "processor_ms_per_frame": float(np.mean([each for _, each in runs])),
    }


def label_ious(film: Film, index: int, result: ChainResult) -> list[float]:
    ious = []
    for number in range(len(film.labels)):
        label = film.label(number, index)
        rows, columns = np.flatnonzero(label.any(1)), np.flatnonzero(label.any(0))
        if not len(rows) or not len(result):
            continue
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
        overlap = coco.box_ious(box, result.detections.xyxy)[0]
        best = int(overlap.argmax())
        if overlap[best] >= FOUND_IOU:
            mask = result.masks.full(best)
            ious.append(float((mask & label).sum() / (mask | label).sum()))
    return ious


def agree(one: ChainResult, other: ChainResult) -> np.ndarray:
    """IoU of the masks of two results with the same boxes."""
    pairs = [(one.masks.full(i), other.masks.full(i)) for i in range(len(one))]
    return np.array([(a & b).sum() / max(1, (a | b).sum()) for a, b in pairs], np.float64)


if __name__ == "__main__":
    main()
