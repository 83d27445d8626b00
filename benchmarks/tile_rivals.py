"""Who finds boxes in tiles for `bench_mosaic.py`: edgekd and SAHI, with one detector, on one picture in memory.

Both cut 4,000 px into the same 64 tiles of 640 px that overlap by 160 px, and take boxes of the same confidence. What
they find is compared twice: tile by tile as the detector gives it, and after seams are joined, where the two differ by
design (SAHI merges boxes that cover each other by half; edgekd compares them where both tiles look).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.measure import coco_metrics as coco
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.mosaic import MosaicOptions, collect, run_mosaic
from edgekd.runtime.tiles import TileOptions, choose_grid
from edgekd.runtime.windows import ArrayWindows, open_windows
from edgekd.types import Detections

SIDE_PX, TILE_PX, OVERLAP_PX, SHOWN = 4_000, 640, 160, 0.25
ARMS = ("edgekd-fp32", "edgekd-auto", "sahi-pytorch", "sahi-openvino")
SAME_BOX_IOU, SAME_OBJECT_IOU = 0.9, 0.5
WARM_UP_PX = 1200

Call = Callable[[np.ndarray], Detections]


def build_for_sahi(work: Path) -> None:
    """Lay the shipped detector out as SAHI takes it, unless it is there."""
    from ultralytics import YOLO

    from edgekd.models.weights import SHIPPED_DETECTOR, export_shipped

    if not (work / "detector_openvino_model").is_dir():
        export_shipped(SHIPPED_DETECTOR, work / "detector.pt")
        YOLO(work / "detector.pt").export(format="openvino", imgsz=640, verbose=False)


def read_mosaic(work: Path) -> np.ndarray:
    """The smaller mosaic; one bit of every fourth pixel is turned, so that no tile has one colour and is left out."""
    picture = np.array(open_windows(work / "small.tif").read((0, 0, SIDE_PX, SIDE_PX)))
    picture[::2, ::2] ^= 1
    return picture


def time_arm(work: Path, arm: str, threads: int) -> dict[str, float]:
    """Seconds of one call after a warm-up on a corner of the mosaic."""
    picture = read_mosaic(work)
    call = (edgekd_call if arm.startswith("edgekd") else sahi_call)(work, arm, threads)
    call(picture[:WARM_UP_PX, :WARM_UP_PX])
    start = time.perf_counter()
    found = call(picture)
    return {"seconds": time.perf_counter() - start, "n_boxes": len(found)}


def boxes_of_arm(work: Path, arm: str, threads: int) -> dict[str, Any]:
    """What an arm finds, seams joined, and tile by tile before that."""
    picture = read_mosaic(work)
    joined, apart = (edgekd_call, edgekd_tiles) if arm.startswith("edgekd") else (sahi_call, sahi_tiles)
    return {
        "joined": _listed(joined(work, arm, threads)(picture)),
        "tiles": _listed(apart(work, arm, threads)(picture)),
    }


def compare(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """Which part of one arm's boxes the other has, and the reverse, tile by tile and joined."""
    report: dict[str, float] = {}
    for stage, iou in (("tiles", SAME_BOX_IOU), ("joined", SAME_OBJECT_IOU)):
        a, b = (np.array(side[stage], np.float32).reshape(-1, 6) for side in (one, other))
        report |= {f"{stage}: of one in the other": _part(a, b, iou), f"{stage}: of the other in one": _part(b, a, iou)}
    return report


def edgekd_call(work: Path, arm: str, threads: int) -> Call:
    chain = Chain.open(work / arm, threads)
    options = MosaicOptions(ChainOptions(detect=DetectOptions(SHOWN)), TileOptions(TILE_PX, OVERLAP_PX), masks=False)

    def call(picture: np.ndarray) -> Detections:
        windows = ArrayWindows(picture)
        return collect(run_mosaic(chain, windows, options), windows.size_px).detections

    return call


def edgekd_tiles(work: Path, arm: str, threads: int) -> Call:
    chain = Chain.open(work / arm, threads)

    def call(picture: np.ndarray) -> Detections:
        grid = choose_grid(picture.shape[:2], chain.manifest.pipeline, TileOptions(TILE_PX, OVERLAP_PX))
        parts = []
        for left, top, right, bottom in grid:
            found = chain.detect(np.ascontiguousarray(picture[top:bottom, left:right]), DetectOptions(SHOWN))
            parts.append((found.xyxy + np.array([left, top] * 2), found.confidence, found.class_id))
        xyxy, confidence, class_id = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Detections(xyxy.astype(np.float32), confidence, class_id)

    return call


def sahi_call(work: Path, arm: str, threads: int) -> Call:
    return _sahi(work, arm, threads, {})


def sahi_tiles(work: Path, arm: str, threads: int) -> Call:
    """SAHI with a limit at which nothing is merged: two boxes would have to be equal."""
    nothing = {"postprocess_type": "NMS", "postprocess_match_metric": "IOU", "postprocess_match_threshold": 1.0}
    return _sahi(work, arm, threads, nothing | {"force_postprocess_type": True})


def _sahi(work: Path, arm: str, threads: int, postprocess: dict[str, Any]) -> Call:
    import torch
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    torch.set_num_threads(threads)
    path = work / ("detector.pt" if arm == "sahi-pytorch" else "detector_openvino_model")
    model = AutoDetectionModel.from_pretrained(
        model_type="ultralytics", model_path=str(path), confidence_threshold=SHOWN, device="cpu", image_size=TILE_PX
    )
    overlap = OVERLAP_PX / TILE_PX

    def call(picture: np.ndarray) -> Detections:
        result = get_sliced_prediction(
            np.ascontiguousarray(picture[:, :, ::-1]), model, slice_height=TILE_PX, slice_width=TILE_PX,
            overlap_height_ratio=overlap, overlap_width_ratio=overlap, perform_standard_pred=False, verbose=0,
            **postprocess,
        )  # fmt: skip
        found = result.object_prediction_list
        return Detections(
            np.array([each.bbox.to_xyxy() for each in found], np.float32).reshape(-1, 4),
            np.array([each.score.value for each in found], np.float32),
            np.array([each.category.id for each in found], np.int32),
        )

    return call


def tile_corners(arm: str) -> list[tuple[int, int, int, int]]:
    """The tiles of an arm, sorted."""
    if arm.startswith("edgekd"):
        from edgekd.runtime.tiles import TileGrid

        return sorted(TileGrid((SIDE_PX, SIDE_PX), TILE_PX, OVERLAP_PX))
    from sahi.slicing import get_slice_bboxes

    overlap = OVERLAP_PX / TILE_PX
    return sorted(tuple(box) for box in get_slice_bboxes(SIDE_PX, SIDE_PX, TILE_PX, TILE_PX, False, overlap, overlap))


def _listed(found: Detections) -> list[list[float]]:
    return np.column_stack([found.xyxy, found.confidence, found.class_id]).round(3).tolist()


def _part(a: np.ndarray, b: np.ndarray, iou: float) -> float:
    """Which part of the boxes in `a` has one of its class in `b` with at least this IoU."""
    ious = coco.box_ious(a[:, :4], b[:, :4])
    ious[a[:, None, 5] != b[None, :, 5]] = 0
    return float((ious.max(1) >= iou).mean())
