"""How good masks are: IoU per object with ground-truth prompts, by size and class, and what needs no network.

In: a TinySam and `LabelledPicture`s. Out: `ObjectScore`s and a summary. Masks are scored in the pixels of the
picture, at a given longer side of the network's input; with a box prompt they are cut to the box, as the runtime does.
The three baselines are what any segmenter has to beat: the filled box, its inscribed ellipse, and OpenCV's GrabCut.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.data.labels import LabelledPicture
from edgekd.data.read import read_pixels
from edgekd.errors import GateFailed
from edgekd.models.prompt_decoder import FOREGROUND, MASK_CELL_PX
from edgekd.models.tinysam import PromptDecoder, TinySam
from edgekd.train.finetune.crops import tight_box, whole_frame
from edgekd.train.finetune.prompts import PromptKind

Mask = NDArray[np.bool_]
BASELINES = ("box fill", "ellipse", "grabcut")
SMALL_PX, MEDIUM_PX = 32**2, 96**2
"""COCO's limits on the area of small and medium objects."""

_PROMPTS_AT_ONCE = 8
_GRABCUT_ROUNDS = 5


@dataclass(frozen=True)
class ObjectMask:
    """A predicted mask beside the truth, both (H, W) in picture pixels."""

    class_name: str
    truth: Mask
    predicted: Mask
    predicted_iou: float

    @property
    def iou(self) -> float:
        """IoU of the two; 1 where both are empty."""
        return mask_agreement(self.truth, self.predicted)


def mask_agreement(a: Mask, b: Mask) -> float:
    """IoU of two masks of one size; 1 where both are empty."""
    union = int((a | b).sum())
    return 1.0 if union == 0 else int((a & b).sum()) / union


@torch.no_grad()
def predict_objects(
    model: TinySam, sample: LabelledPicture, long_side_px: int, kind: PromptKind
) -> Iterator[ObjectMask]:
    """The model's mask of every object of one picture, prompted with the truth: its box, box and centre, or a point."""
    model.eval()
    frame = whole_frame(sample, long_side_px)
    device = next(model.parameters()).device
    embeddings = model.image_encoder(torch.from_numpy(frame.image).unsqueeze(0).to(device))
    decoder = PromptDecoder(model, "box+centre" if kind == "box+centre" else "box").to(device)
    scale = _scale(sample.size_px, long_side_px)
    truths = [(sample.name_of(index), sample.mask(index)) for index in range(len(sample))]
    seen = [(name, truth) for name, truth in truths if truth.any()]
    for first in range(0, len(seen), _PROMPTS_AT_ONCE):
        chunk = seen[first : first + _PROMPTS_AT_ONCE]
        boxes = np.array([tight_box(t) for _, t in chunk], np.float32)
        if kind == "point":
            points = np.array([inner_point(t, b) for (_, t), b in zip(chunk, boxes, strict=True)], np.float32)
            coords = torch.from_numpy(points * scale).unsqueeze(1).to(device)
            labels = torch.full(coords.shape[:2], FOREGROUND, device=device)
            low_res, iou = decoder.forward_points(embeddings, coords, labels)
        else:
            low_res, iou = decoder(embeddings, torch.from_numpy(boxes * np.tile(scale, 2)).to(device))
        logits = low_res.float().cpu().numpy()
        for (name, truth), box, logit, score in zip(chunk, boxes, logits, iou.tolist(), strict=True):
            mask = to_picture(logit, sample.size_px, scale)
            yield ObjectMask(name, truth > 0, mask if kind == "point" else cut_to_box(mask, box), score)


def _scale(size_px: tuple[int, int], long_side_px: int) -> NDArray[np.float32]:
    # Input pixels per picture pixel, x and y, with the rounding that `whole_frame` makes.
    height, width = size_px
    ratio = long_side_px / max(height, width)
    return np.array([max(1, round(width * ratio)) / width, max(1, round(height * ratio)) / height], np.float32)


def to_picture(logits: NDArray[np.float32], size_px: tuple[int, int], scale: NDArray[np.float32]) -> Mask:
    """Low-resolution logits, cells of 4 input pixels, to a (H, W) mask of the picture, bilinear."""
    cells_per_px = scale / MASK_CELL_PX
    # Picture pixel centre -> cell coordinate: (p + .5) * cells_per_px - .5; warpAffine is given this inverse map.
    offset = 0.5 * cells_per_px - 0.5
    matrix = np.array([[cells_per_px[0], 0, offset[0]], [0, cells_per_px[1], offset[1]]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    up = cv2.warpAffine(logits, matrix, size_px[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(up > 0)


def cut_to_box(mask: Mask, box: NDArray[np.float32]) -> Mask:
    """Clear everything outside an xyxy box."""
    x1, y1, x2, y2 = (int(v) for v in box)
    cut = np.zeros_like(mask)
    cut[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
    return cut


def inner_point(mask: NDArray[np.uint8], box: NDArray[np.float32]) -> tuple[float, float]:
    """The box centre when the object covers it, else the pixel of the object that is farthest from its edge."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    if mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)]:
        return float(x), float(y)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    row, column = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(column) + 0.5, float(row) + 0.5


def baseline_objects(sample: LabelledPicture, baseline: str) -> Iterator[ObjectMask]:
    """Masks that need no training, from the ground-truth box: one of `BASELINES`."""
    picture = read_pixels(sample) if baseline == "grabcut" else None
    for index in range(len(sample)):
        truth = sample.mask(index)
        if not truth.any():
            continue
        x1, y1, x2, y2 = (int(v) for v in tight_box(truth))
        guess = np.zeros(sample.size_px, np.uint8)
        if baseline == "ellipse":
            axes = (max((x2 - x1) // 2, 1), max((y2 - y1) // 2, 1))
            cv2.ellipse(guess, ((x1 + x2) // 2, (y1 + y2) // 2), axes, 0, 0, 360, 1, -1)
        elif baseline == "grabcut" and picture is not None:
            guess = _grabcut(picture, (x1, y1, x2, y2))
        else:
            guess[y1:y2, x1:x2] = 1
        yield ObjectMask(sample.name_of(index), truth > 0, cut_to_box(guess > 0, np.array([x1, y1, x2, y2])), 0.0)


def _grabcut(picture: NDArray[np.uint8], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    # Worked out on the box and as much around it; on the whole picture GrabCut would take seconds per object.
    x1, y1, x2, y2 = box
    pad_x, pad_y = max(x2 - x1, 8), max(y2 - y1, 8)
    left, top = max(x1 - pad_x, 0), max(y1 - pad_y, 0)
    window = picture[top : y2 + pad_y, left : x2 + pad_x]
    labels = np.zeros(window.shape[:2], np.uint8)
    rectangle = (x1 - left, y1 - top, x2 - x1, y2 - y1)
    guess = np.zeros(picture.shape[:2], np.uint8)
    if rectangle[2] >= window.shape[1] and rectangle[3] >= window.shape[0]:
        guess[y1:y2, x1:x2] = 1  # the box is the whole picture: there is no background to learn from
        return guess
    cv2.setRNGSeed(0)
    cv2.grabCut(window, labels, rectangle, np.zeros((1, 65)), np.zeros((1, 65)), _GRABCUT_ROUNDS, cv2.GC_INIT_WITH_RECT)
    height, width = window.shape[:2]
    guess[top : top + height, left : left + width] = labels & 1
    return guess


@dataclass(frozen=True)
class ObjectScore:
    """What is kept of an `ObjectMask` once it is scored."""

    class_name: str
    area_px: int
    iou: float
    predicted_iou: float


def score(masks: Iterator[ObjectMask]) -> list[ObjectScore]:
    """Score masks one by one, so that only one is in memory."""
    return [ObjectScore(m.class_name, int(m.truth.sum()), m.iou, m.predicted_iou) for m in masks]


def summarise(scores: Sequence[ObjectScore]) -> dict[str, object]:
    """Mean IoU over all objects, by COCO size and by class, with counts, and the error of the predicted IoU."""
    by_size: dict[str, list[float]] = {"small": [], "medium": [], "large": []}
    by_class: dict[str, list[float]] = {}
    for s in scores:
        size = "small" if s.area_px < SMALL_PX else "medium" if s.area_px < MEDIUM_PX else "large"
        by_size[size].append(s.iou)
        by_class.setdefault(s.class_name, []).append(s.iou)
    mean = {name: round(float(np.mean(v)), 4) if v else None for name, v in by_size.items()}
    return {
        "miou": round(float(np.mean([s.iou for s in scores])), 4),
        "n_objects": len(scores),
        "by_size": mean,
        "n_by_size": {name: len(v) for name, v in by_size.items()},
        "by_class": {name: round(float(np.mean(v)), 4) for name, v in sorted(by_class.items())},
        "predicted_iou_error": round(float(np.mean([abs(s.iou - s.predicted_iou) for s in scores])), 4),
    }


KEEP = 0.95
"""Share of the earlier quality that every kind of prompt must keep."""


@dataclass(frozen=True)
class Retention:
    """One kind of prompt on the same pictures before and after.

    Attributes:
        agreement: mean IoU between the masks before and after, 0..1.
        miou_before, miou_after: mean IoU with the truth; None where the pictures have no truth.
        n_masks: masks compared.
    """

    agreement: float
    miou_before: float | None
    miou_after: float | None
    n_masks: int

    @property
    def kept(self) -> float:
        """Share kept: of the quality where there is a truth, else the agreement. May exceed 1."""
        if self.miou_before is None or self.miou_after is None:
            return self.agreement
        return self.miou_after / max(self.miou_before, 1e-9)


def compare(before: Sequence[Mask], after: Sequence[Mask], truths: Sequence[Mask] | None = None) -> Retention:
    """Compare aligned lists of masks; a list without masks agrees fully."""
    agreement = _mean([mask_agreement(a, b) for a, b in zip(before, after, strict=True)])
    if truths is None:
        return Retention(agreement, None, None, len(before))
    quality = [_mean([mask_agreement(m, t) for m, t in zip(masks, truths, strict=True)]) for masks in (before, after)]
    return Retention(agreement, quality[0], quality[1], len(before))


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 1.0


def check_retention(by_kind: Mapping[str, Retention], stage: int, keep: float, state: Path) -> None:
    """Raise GateFailed when a kind of prompt keeps less than `keep`; the message names the worst, and the weights."""
    if not by_kind:
        return
    worst = min(by_kind, key=lambda kind: by_kind[kind].kept)
    kept = by_kind[worst].kept
    if kept < keep:
        raise GateFailed(
            f"after stage {stage} the prompt '{worst}' keeps {100 * kept:.1f} % of what it could do before, expected "
            f"{100 * keep:.0f} %; the weights are in {state}: train with a lower learning rate or fewer steps, or "
            "repeat the command with `resume` and a lower `keep` if the loss is intended"
        )
