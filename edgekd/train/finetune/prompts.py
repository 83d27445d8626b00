"""Prompts drawn from ground truth: boxes, jittered boxes, centre points and random points.

In: masks (n, H, W) and their tight boxes. Out: point_coords (n, K, 2) and point_labels (n, K), SAM's form (labels of
`models.prompt_decoder`). One kind per call, because a padded prompt is not the same network input as a short one.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.models.prompt_decoder import BOX_LABELS, FOREGROUND, PADDING

PromptKind = Literal["box", "box+centre", "point"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)

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
