"""DOTA's way for `bench_oriented.py`: a large picture with DOTA's labels, its tiles, a run, the merged submission.

Every step is the command line's own: `edgekd data dota`, `edgekd run`, `edgekd data merge`. The submission is read back
from its files and scored on the labels of the large picture, beside the same bundle on the whole picture (which it
tiles by itself) and on the pictures alone, of which the large one is made.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mosaics import Place, lay_out

from edgekd.data.dota import read_dota
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.runtime.chain import Chain
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.oriented import enclosing, turned_ious
from edgekd.runtime.sources import read_picture
from edgekd.types import Detections

SIDE_PX, TRAIN_SIDE_PX, TILE_PX, OVERLAP_PX = 6_000, 2_000, 960, 420
"""The detector was trained on pictures of about 950 px; the largest object of the set has 404 px."""
CONFIDENCE, SHOWN, SAME_OBJECT_IOU, MAX_BOXES = 0.01, 0.25, 0.5, 10_000

Score = Callable[[LabelledSet, Sequence[Detections], int], dict[str, float]]


def measure(work: Path, splits: dict[str, LabelledSet], bundle: Path, score: Score) -> dict[str, Any]:
    """Make the pictures, run all three ways, and score them on the same labels."""
    source = work / "dota"
    placed = {split: lay_out(labels, SIDE_PX if split == "val" else TRAIN_SIDE_PX) for split, labels in splits.items()}
    for number, split in enumerate(("train", "val")):
        if not (source / split / "labelTxt").is_dir():
            write_dota(source / split, f"P000{number}", *placed[split], SIDE_PX if split == "val" else TRAIN_SIDE_PX)
    if not (work / "tiles").is_dir():
        edgekd("data", "dota", source, "-o", work / "tiles", "--tile-px", TILE_PX, "--overlap-px", OVERLAP_PX)
    wanted = ("--boxes-only", "--no-overlays", "--formats", "dota", "--confidence", CONFIDENCE, "--max-boxes", 3000)
    edgekd("run", bundle, work / "tiles/images/val", "--tile", "off", *wanted, "-o", work / "found")
    edgekd("data", "merge", work / "found", "-o", work / "submission")
    edgekd("run", bundle, source / "val/images/P0001.png", *wanted, "-o", work / "whole")
    labels = read_dota(source / "val")
    ways = {
        "tiles on the disk, merged submission": read_submission(work / "submission", labels),
        "the whole picture, in tiles by itself": read_submission(work / "whole", labels),
        "one by one": one_by_one(bundle, *placed["val"], labels),
    }
    n_tiles = len(list((work / "tiles/images/val").iterdir()))
    return {
        "side_px": SIDE_PX, "tile_px": TILE_PX, "overlap_px": OVERLAP_PX, "n_tiles": n_tiles,
        "n_pictures": len(placed["val"][0]), "n_objects": labels.n_objects, "confidence": CONFIDENCE,
        **{way: score(labels, [found], MAX_BOXES) | counts(found, labels.pictures[0]) for way, found in ways.items()},
    }  # fmt: skip


def edgekd(*words: object) -> None:
    """Run a command; the benchmark ends with its message where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekd", *map(str, words)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"edgekd {words[0]} {words[1]}: {done.stderr[-2000:]}")


def write_dota(folder: Path, name: str, pictures: list[LabelledPicture], places: list[Place], side_px: int) -> None:
    """One large picture and its labels as DOTA is published."""
    canvas, lines = np.full((side_px, side_px, 3), 114, np.uint8), ["imagesource:NWPU VHR-10", "gsd:null"]
    for picture, (left, top) in zip(pictures, places, strict=True):
        height, width = picture.size_px
        canvas[top : top + height, left : left + width] = read_picture(picture.path)
        for index in range(len(picture)):
            corners = picture.turned_corners(index) + np.array([left, top])
            lines.append(" ".join([*(f"{value:.1f}" for value in corners.ravel()), picture.name_of(index), "0"]))
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / f"{name}.png"), canvas)
    (folder / "labelTxt").mkdir()
    (folder / "labelTxt" / f"{name}.txt").write_text("\n".join(lines) + "\n")


def read_submission(folder: Path, labels: LabelledSet) -> Detections:
    """The objects of one picture from the files of a submission, `Task1_CLASS.txt`."""
    rows: list[list[float]] = []
    for class_id, name in enumerate(labels.class_names):
        file = folder / f"Task1_{name}.txt"
        for line in file.read_text().splitlines() if file.is_file() else ():
            picture, *numbers = line.split()
            if picture != labels.pictures[0].path.stem or len(numbers) != 9:
                raise SystemExit(f"{file} holds the line {line!r}, expected the picture and nine numbers")
            rows.append([class_id, *map(float, numbers)])
    table = np.array(sorted(rows, key=lambda row: -row[1]), np.float64).reshape(-1, 10)
    corners = table[:, 2:].reshape(-1, 4, 2).astype(np.float32)
    return Detections(enclosing(corners), table[:, 1].astype(np.float32), table[:, 0].astype(np.int32), corners)


def one_by_one(bundle: Path, pictures: list[LabelledPicture], places: list[Place], labels: LabelledSet) -> Detections:
    """What the bundle finds in each picture alone, in pixels of the large one and in its classes."""
    corners, confidence, classes = [], [], []
    with Chain.open(bundle) as chain:
        names = chain.manifest.pipeline.class_names
        for picture, place in zip(pictures, places, strict=True):
            found = chain.detect(read_picture(picture.path), DetectOptions(CONFIDENCE, max_boxes=3000))
            assert found.corners is not None
            corners.append(found.corners + np.array(place, np.float32))
            confidence.append(found.confidence)
            classes += [labels.class_names.index(names[class_id]) for class_id in found.class_id]
    order = np.argsort(-np.concatenate(confidence), kind="stable")
    quads = np.concatenate(corners)[order]
    found = np.concatenate(confidence)[order], np.array(classes, np.int32)[order]
    return Detections(enclosing(quads), *found, quads)


def counts(found: Detections, truth: LabelledPicture) -> dict[str, int]:
    """How many labels have a box at the shown confidence, and how many boxes of one class cover each other by half."""
    kept = found[found.confidence >= SHOWN]
    assert kept.corners is not None
    quads = np.array([truth.turned_corners(index) for index in range(len(truth))], np.float32)
    ious = turned_ious(kept.corners, quads)
    ious[kept.class_id[:, None] != truth.class_id[None]] = 0
    own = turned_ious(kept.corners, kept.corners)
    own[kept.class_id[:, None] != kept.class_id[None]] = 0
    return {
        "n_boxes": len(kept),
        "n_labels_found": int((ious.max(0, initial=0) >= SAME_OBJECT_IOU).sum()),
        "n_pairs_over_half": int((np.triu(own, 1) > SAME_OBJECT_IOU).sum()),
    }
