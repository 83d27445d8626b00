"""What flows through the runtime: arrays of boxes and masks with the shapes their names promise.

Legend: n boxes in one picture, H x W picture size. Coordinates are pixels of the picture that the user gave, x to the
right, y down, pixel centres at +0.5; `xyxy` is left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError

Float32Array = NDArray[np.float32]
Int32Array = NDArray[np.int32]
UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]


Rows = NDArray[np.intp] | BoolArray | slice
"""Which objects to keep: their indices, one truth value per object, or a slice."""


@dataclass(frozen=True, repr=False)
class Detections:
    """Boxes found in one picture, most confident first.

    Attributes:
        xyxy: (n, 4) float32, pixels of the picture.
        confidence: (n,) float32, 0..1.
        class_id: (n,) int32, index into the bundle's class names.
        corners: (n, 4, 2) float32, x and y in px, of turned boxes: left top, right top, right bottom, left bottom of
            the box before it is turned clockwise. None where boxes are upright. A corner may lie outside the picture;
            `xyxy` is then the box around the corners, clipped to the picture.
    """

    xyxy: Float32Array
    confidence: Float32Array
    class_id: Int32Array
    corners: Float32Array | None = None

    def __post_init__(self) -> None:
        """Check that the arrays describe the same boxes.

        Raises:
            InputError: `xyxy` is not (n, 4), `corners` is not (n, 4, 2), or the lengths differ.
        """
        if self.xyxy.ndim != 2 or self.xyxy.shape[1] != 4:
            raise InputError(f"xyxy has shape {self.xyxy.shape}, expected (n, 4): one left, top, right, bottom a row")
        lengths = (len(self.xyxy), len(self.confidence), len(self.class_id))
        if len(set(lengths)) != 1:
            raise InputError(f"xyxy, confidence and class_id have {lengths} rows, expected the same number in each")
        if self.corners is not None and self.corners.shape != (len(self.xyxy), 4, 2):
            raise InputError(f"corners has shape {self.corners.shape}, expected ({len(self.xyxy)}, 4, 2)")

    def __len__(self) -> int:
        return len(self.xyxy)

    def __repr__(self) -> str:
        return f"Detections({len(self)} boxes)"

    def __getitem__(self, index: Rows) -> Detections:
        corners = None if self.corners is None else self.corners[index]
        return Detections(self.xyxy[index], self.confidence[index], self.class_id[index], corners)

    @staticmethod
    def from_boxes(xyxy: Float32Array) -> Detections:
        """Wrap boxes that came from somewhere else (an annotation, a user) with confidence 1 and class 0."""
        boxes = np.ascontiguousarray(xyxy, np.float32).reshape(-1, 4)
        return Detections(boxes, np.ones(len(boxes), np.float32), np.zeros(len(boxes), np.int32))


@dataclass(frozen=True, repr=False)
class Masks:
    """One mask a box, each kept as the crop that its box needs.

    Attributes:
        size_px: (height, width) of the picture.
        windows: (n, 4) int32, left, top, right, bottom of each crop in the picture, right and bottom exclusive.
        crops: n arrays of bool, each (bottom - top, right - left).
        predicted_iou: (n,) float32, the segmenter's own estimate of each mask's IoU.
    """

    size_px: tuple[int, int]
    windows: Int32Array
    crops: Sequence[BoolArray]
    predicted_iou: Float32Array

    def __len__(self) -> int:
        return len(self.crops)

    def __repr__(self) -> str:
        height, width = self.size_px
        return f"Masks({len(self)} of {width}x{height} px)"

    def __getitem__(self, index: Rows) -> Masks:
        rows = np.arange(len(self))[index]
        crops = tuple(self.crops[row] for row in rows)
        return Masks(self.size_px, self.windows[rows], crops, self.predicted_iou[rows])

    def full(self, index: int) -> BoolArray:
        """Return mask `index` at the size of the picture: (H, W) bool."""
        mask = np.zeros(self.size_px, np.bool_)
        left, top, right, bottom = self.windows[index]
        mask[top:bottom, left:right] = self.crops[index]
        return mask

    def areas_px(self) -> NDArray[np.int64]:
        """Return the number of pixels in each mask: (n,) int64."""
        return np.array([int(crop.sum()) for crop in self.crops], np.int64)


@dataclass(frozen=True, repr=False)
class ChainResult:
    """What one picture gave.

    Attributes:
        detections: the boxes.
        masks: one mask per box, in the same order.
        class_names: the bundle's class names, indexed by `detections.class_id`.
        times_ms: milliseconds per stage, in the order in which the stages ran; `total` is the whole chain.
    """

    detections: Detections
    masks: Masks
    class_names: tuple[str, ...]
    times_ms: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.detections)

    def __repr__(self) -> str:
        """Say how many objects of which classes, the picture's size, and the time."""
        names = [self.class_names[int(class_id)] for class_id in self.detections.class_id]
        counts = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        height, width = self.masks.size_px
        time = f", {self.times_ms['total']:.0f} ms" if "total" in self.times_ms else ""
        return f"ChainResult({len(self)} objects{': ' * bool(counts)}{counts}; {width}x{height} px{time})"

    def __getitem__(self, index: Rows) -> ChainResult:
        return ChainResult(self.detections[index], self.masks[index], self.class_names, self.times_ms)

    def save(self, path: str | Path, picture: UInt8Array | None = None) -> Path:
        """Write the result in the form that the suffix of `path` names, in one step.

        Args:
            path: `.json` (objects with masks as COCO run lengths), `.csv`, `.txt` (YOLO-seg labels), `.png` (label
                map, 16 bits), or `.jpg` (masks in colour). With `picture`, `.png` and `.jpg` are drawn over it.
            picture: the one that was run, (H, W, 3) uint8 BGR.

        Returns:
            The path.

        Raises:
            InputError: the suffix is another, the picture has another size, or the file cannot be written.
        """
        from edgekd.runtime.results.single import save_result

        return save_result(self, Path(path), picture)

    def to_supervision(self) -> Any:
        """Return the objects as `supervision.Detections`; masks are (n, H, W) bool, names are in `data["class_name"]`.

        Raises:
            BackendUnavailable: supervision is not installed.
        """
        from edgekd.runtime.results.single import supervision_detections

        return supervision_detections(self)
