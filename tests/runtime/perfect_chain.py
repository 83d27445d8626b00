"""A chain without networks: every bright region of a picture is an object, seen exactly."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from edgekd.model_set import ImageInput
from edgekd.types import ChainResult, Detections, Masks

INPUT = ImageInput(
    height_px=128, width_px=128, place="centre", interpolation="linear", mean=(0, 0, 0), std=(1, 1, 1), pad=(0, 0, 0)
)
PIPELINE = SimpleNamespace(
    class_names=("thing", "other"),
    detector_input=INPUT,
    trained_scale=None,
    head=SimpleNamespace(is_oriented=False),
)


class PerfectChain:
    """Counts its calls over all clones; `stop_after` raises KeyboardInterrupt then."""

    def __init__(self, calls: list[int] | None = None, stop_after: int | None = None) -> None:
        self.manifest: Any = SimpleNamespace(pipeline=PIPELINE, model_dump_json=lambda: "{}", max_boxes=300)
        self.segmenter: Any = SimpleNamespace(takes_boxes=True)
        self.calls = calls if calls is not None else [0]
        self.stop_after = stop_after

    def clone(self) -> PerfectChain:
        return PerfectChain(self.calls, self.stop_after)

    def close(self) -> None:
        pass

    def detect(self, picture: np.ndarray, options: Any = None) -> Detections:
        return self(picture).detections

    def __call__(
        self, picture: np.ndarray, options: Any = None, boxes: np.ndarray | None = None, class_id: Any = None
    ) -> ChainResult:
        self.calls[0] += 1
        if self.stop_after is not None and self.calls[0] > self.stop_after:
            raise KeyboardInterrupt
        bright = (picture[:, :, 1] > 200).astype(np.uint8)
        n, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
        found = [index for index in range(1, n) if stats[index, cv2.CC_STAT_AREA] >= 25]
        left, top, width, height = stats[found, :4].T if found else np.zeros((4, 0), np.int32)
        windows = np.stack([left, top, left + width, top + height], 1).astype(np.int32).reshape(-1, 4)
        crops = [labels[t:b, x:r] == index for index, (x, t, r, b) in zip(found, windows, strict=True)]
        ones = np.full(len(found), 0.9, np.float32)
        detections = Detections(windows.astype(np.float32), ones, np.zeros(len(found), np.int32))
        masks = Masks(picture.shape[:2], windows, crops, ones)
        return ChainResult(detections, masks, PIPELINE.class_names, {"total": 1.0})


def draw(size_px: tuple[int, int], n: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A dark noisy picture with bright ellipses apart from each other, and their labels (0 is background)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(size_px, np.int32)
    for index in range(1, n + 1):
        canvas = np.zeros(size_px, np.uint8)
        centre = tuple(int(v) for v in rng.integers(0, size_px[::-1]))
        axes = tuple(int(v) for v in rng.integers(5, 15, 2))
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, cv2.FILLED)
        grown = cv2.dilate(canvas, np.ones((5, 5), np.uint8))
        if not labels[grown > 0].any() and canvas.sum() > 25:
            labels[canvas > 0] = index
    picture = rng.integers(1, 60, (*size_px, 3), np.uint8)
    picture[labels > 0] = 255
    return picture, labels
