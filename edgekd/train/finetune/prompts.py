"""Prompts drawn from ground truth: boxes, jittered boxes, centre points and random points.

In: masks (n, H, W) and their tight boxes. Out: point_coords (n, K, 2) and point_labels (n, K), SAM's form (labels of
`models.prompt_decoder`). One kind per call, because a padded prompt is not the same network input as a short one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from edgekd.models.prompt_decoder import (
    BOX_LABELS,
    FOREGROUND,
    MASK_CELL_PX,
    PADDING,
    Frame,
    cut_to_boxes,
    draw_boxes,
    draw_points,
)
from edgekd.models.tinysam import TinySam
from edgekd.train.finetune.crops import Crop

PromptKind = Literal["box", "box+centre", "point"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)


def known_kinds(model: TinySam) -> tuple[PromptKind, ...]:
    """The kinds of prompts that a network can answer.

    A foreground point whose embedding is zero was never learned, as in `tinysam-nwpu`, whose graph takes boxes. Such
    a network answers a point with noise, and would forget its boxes over it.
    """
    knows_points = bool(model.prompt_encoder.point_embeddings[FOREGROUND].weight.any())
    return PROMPT_KINDS if knows_points else tuple(kind for kind in PROMPT_KINDS if kind != "point")


BOX_NOISE = 0.06
"""Standard deviation of a jittered corner, as a share of the box's side; a detector's boxes are about that far off."""


def jitter_boxes(boxes: NDArray[np.float32], noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Move every corner by a normal error of `noise` times the side, cut off at three deviations; order is kept."""
    sides = np.repeat((boxes[:, 2:] - boxes[:, :2])[:, None], 2, axis=1).reshape(-1, 4)
    error = np.clip(rng.normal(0, noise, boxes.shape), -3 * noise, 3 * noise)
    return np.asarray(boxes + error * sides, np.float32)


def point_in_mask(mask: NDArray[np.uint8], box: NDArray[np.float32], rng: np.random.Generator) -> tuple[float, float]:
    """The box centre when the object covers it, else one of the object's pixels at random."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    row, column = min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)
    if mask[row, column]:
        return float(x), float(y)
    ys, xs = np.nonzero(mask)
    chosen = rng.integers(len(ys))
    return float(xs[chosen]) + 0.5, float(ys[chosen]) + 0.5


def draw_prompts(
    kind: PromptKind, masks: NDArray[np.uint8], boxes: NDArray[np.float32], rng: np.random.Generator, noise: float
) -> tuple[Tensor, Tensor]:
    """Prompts of one kind for n objects: coords (n, K, 2) float32 and labels (n, K) int64.

    Half of the boxes are jittered by `noise` (0 for none). A point prompt ends in SAM's padding point.
    """
    if kind == "point":
        points = [point_in_mask(m, b, rng) for m, b in zip(masks, boxes, strict=True)]
        coords = np.zeros((len(points), 2, 2), np.float32)
        coords[:, 0] = points
        labels = [FOREGROUND, PADDING]
    else:
        exact = rng.random(len(boxes)) < 0.5
        used = np.where(exact[:, None], boxes, jitter_boxes(boxes, noise, rng))
        coords, labels = used.reshape(-1, 2, 2), list(BOX_LABELS)
        if kind == "box+centre":
            coords = np.concatenate([coords, coords.mean(axis=1, keepdims=True)], axis=1)
            labels = [*labels, FOREGROUND]
    repeated = torch.tensor(labels).expand(len(boxes), -1)
    return torch.from_numpy(np.ascontiguousarray(coords, np.float32)), repeated


@dataclass(frozen=True)
class PromptBatch:
    """Crops and one prompt per object, flattened to P prompts."""

    images: Tensor  # (B, 3, H, W)
    picture: Tensor  # (P,) int64: the crop of each prompt
    coords: Tensor  # (P, K, 2)
    labels: Tensor  # (P, K)
    boxes: Tensor  # (P, 4), tight
    target: Tensor  # (P, 1, H/4, W/4), share of the cell
    frame: Frame
    kind: PromptKind

    @staticmethod
    def of(crops: Sequence[Crop], kind: PromptKind, rng: np.random.Generator) -> PromptBatch:
        """Draw one prompt of `kind` for every object of the crops, which share one size."""
        prompts = [draw_prompts(kind, crop.masks, crop.boxes, rng, BOX_NOISE) for crop in crops]
        picture = torch.tensor([i for i, crop in enumerate(crops) for _ in range(len(crop.masks))])
        masks = torch.from_numpy(np.concatenate([crop.masks for crop in crops])).float().unsqueeze(1)
        return PromptBatch(
            images=torch.from_numpy(np.stack([crop.image for crop in crops])),
            picture=picture,
            coords=torch.cat([coords for coords, _ in prompts]),
            labels=torch.cat([labels for _, labels in prompts]),
            boxes=torch.from_numpy(np.concatenate([crop.boxes for crop in crops])),
            target=F.avg_pool2d(masks, MASK_CELL_PX),
            frame=Frame(
                torch.tensor([crop.frame_px for crop in crops])[picture],
                torch.tensor([crop.origin_px for crop in crops], dtype=torch.float32)[picture],
            ),
            kind=kind,
        )

    def to(self, device: torch.device) -> PromptBatch:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "picture", "coords", "labels")}
        frame = Frame(self.frame.size_px.to(device), self.frame.origin_px.to(device))
        return PromptBatch(
            **moved, boxes=self.boxes.to(device), target=self.target.to(device), frame=frame, kind=self.kind
        )

    def drawn(self) -> Tensor:
        """The prompts as mask prompts (P, 1, H/4, W/4)."""
        height, width = self.target.shape[-2:]
        if self.kind == "point":
            return draw_points(self.coords, self.labels, height, width)
        return draw_boxes(self.coords[:, :2].flatten(1), height, width)

    def decode(self, model: TinySam, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (P, 3, H/4, W/4) and iou_predictions (P, 3) of `model` from its embeddings (B, 256, h, w), fp32.

        A model that is told its boxes by drawing is cut to them, as `PromptDecoder` does: cells outside cost nothing.
        """
        if len(self.images) > 1:
            embeddings = embeddings[self.picture]
        drawn = self.drawn() if model.draws_prompts else None
        logits, iou = model.decode(embeddings, self.coords, self.labels, self.frame, drawn)
        if drawn is not None and self.kind != "point":
            n_masks, boxes = logits.shape[1], self.coords[:, :2].flatten(1)
            cut = cut_to_boxes(logits.float().flatten(0, 1), boxes.repeat_interleave(n_masks, dim=0))
            logits = cut.unflatten(0, (-1, n_masks))
        return logits.float(), iou.float()
