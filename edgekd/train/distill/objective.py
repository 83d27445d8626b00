"""The distillation terms of one batch: student maps and a frozen teacher in, unweighted scalars by name out.

Which terms exist is decided once, from the method, the lambdas and what the teacher has: `logits` and `full` need a
detection head with the student's classes, `high` needs a trained amplifier. A ViT has neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import box_convert

from edgekd.errors import TrainingError
from edgekd.losses.attention import attention_loss
from edgekd.losses.ds2d2 import band_grid, disw, explicit_fft_loss, explicit_loss, high_frequency
from edgekd.losses.feature import DISTANCES, align_grid, feature_loss
from edgekd.losses.implicit import angle_implicit_loss, decode_distances, dense_implicit_loss
from edgekd.losses.logits import binary_kl
from edgekd.models.teachers import RawPredictions, Teacher, predict
from edgekd.train.distill.recipes import Method, Recipe


@dataclass
class BatchView:
    """What the terms read of one batch.

    Attributes:
        batch: as Ultralytics collates it: `img` (N, 3, H, W) in 0..1, `bboxes` xywh (n, 4) or xywhr (n, 5) as
            fractions, `batch_idx` (n,).
        maps: student maps, one (N, C_l, H_l, W_l) a level.
        projected: the same in the teacher's channels.
        class_logits: of the student's head (N, n_classes, A).
    """

    batch: dict[str, Any]
    maps: list[Tensor]
    projected: list[Tensor]
    class_logits: Tensor


class Objective:
    """The terms of one method with one teacher.

    Raises:
        TrainingError: the method leaves no term for this teacher, or its classes are not the student's.
    """

    def __init__(self, method: Method, recipe: Recipe, teacher: Teacher | None, class_names: tuple[str, ...]) -> None:
        self.method = method
        self.recipe = recipe
        self.teacher = teacher
        self.lambdas = self._choose(class_names)
        if method != "none" and not self.lambdas:
            raise TrainingError(
                f"the method {method} has no term left with this recipe and the teacher "
                f"{teacher.name if teacher else 'none'}; raise one of its lambdas or give another teacher"
            )

    def _choose(self, class_names: tuple[str, ...]) -> dict[str, float]:
        teacher, recipe = self.teacher, self.recipe
        if self.method == "none" or teacher is None:
            return {}
        has_head = teacher.head is not None
        if has_head and self.method == "feature" and recipe.lambda_logits > 0 and teacher.class_names != class_names:
            raise TrainingError(
                f"the teacher {teacher.name} knows {len(teacher.class_names)} classes and the data {len(class_names)} "
                "other ones; train the teacher on this data, or set lambda_logits to 0 in the recipe"
            )
        wanted = {
            "feature": {
                "feature": recipe.lambda_feature,
                "attention": recipe.lambda_attention,
                "logits": recipe.lambda_logits if has_head else 0.0,
            },
            "ds2d2": {
                "explicit": recipe.lambda_explicit,
                "full": recipe.lambda_full if has_head else 0.0,
                "high": recipe.lambda_high if teacher.amplifier is not None else 0.0,
            },
        }[self.method]
        return {name: factor for name, factor in wanted.items() if factor > 0}

    def terms(self, view: BatchView) -> dict[str, Tensor]:
        """Every term of this objective for one batch, unweighted, float32."""
        if self.teacher is None or not self.lambdas:
            return {}
        teacher_maps = self.teacher.maps(view.batch["img"])
        if self.method == "feature":
            return self._feature_terms(view, teacher_maps)
        return self._ds2d2_terms(view, teacher_maps)

    def _feature_terms(self, view: BatchView, teacher_maps: list[Tensor]) -> dict[str, Tensor]:
        recipe, terms = self.recipe, {}
        if "feature" in self.lambdas:
            distance = DISTANCES[recipe.distance]
            terms["feature"] = feature_loss(view.projected, teacher_maps, distance, recipe.level_weights)
        if "attention" in self.lambdas:
            terms["attention"] = attention_loss(view.maps, teacher_maps)
        if "logits" in self.lambdas:
            with torch.no_grad():
                theirs = self._predict(teacher_maps)["scores"].transpose(1, 2)
            confidence = theirs.float().amax(dim=-1).sigmoid()
            ours = view.class_logits.transpose(1, 2)
            terms["logits"] = binary_kl(ours, theirs, recipe.temperature, confidence)
        return terms

    def _ds2d2_terms(self, view: BatchView, teacher_maps: list[Tensor]) -> dict[str, Tensor]:
        terms = {}
        if "explicit" in self.lambdas:
            terms["explicit"] = self._explicit(view, teacher_maps)
        pairs = zip(view.projected, teacher_maps, strict=True)
        aligned = [align_grid(t, (s.shape[2], s.shape[3])) for s, t in pairs]
        if "full" in self.lambdas:
            terms["full"] = self._implicit(self._predict(view.projected), aligned, None)
        if "high" in self.lambdas:
            details = [high_frequency(maps) for maps in view.projected]
            assert self.teacher is not None and self.teacher.amplifier is not None, "chosen only with an amplifier"
            amplifier = self.teacher.amplifier
            terms["high"] = self._implicit(predict(amplifier, details), aligned, amplifier)
        return terms

    def _explicit(self, view: BatchView, teacher_maps: list[Tensor]) -> Tensor:
        recipe = self.recipe
        if recipe.spectrum == "fourier":
            return explicit_fft_loss(view.projected, teacher_maps, recipe.weight_low, recipe.weight_high)
        weights: list[Tensor | None] = [None] * len(view.projected)
        if recipe.is_cell_weighted:
            boxes = enclosing_boxes(view.batch["bboxes"]).to(view.projected[0].device)
            picture = view.batch["batch_idx"].to(boxes.device)
            n_pictures = view.projected[0].shape[0]
            grids = [band_grid((maps.shape[2], maps.shape[3])) for maps in view.projected]
            weights = [disw(boxes, picture, n_pictures, grid, recipe.reading) for grid in grids]
        return explicit_loss(view.projected, teacher_maps, recipe.weight_low, recipe.weight_high, weights)

    def _predict(self, maps: list[Tensor]) -> RawPredictions:
        assert self.teacher is not None and self.teacher.head is not None, "chosen only for teachers with a head"
        return predict(self.teacher.head, maps)

    def _implicit(self, ours: RawPredictions, teacher_maps: list[Tensor], amplifier: nn.Module | None) -> Tensor:
        """Implicit stream through the teacher's own head, or through the amplifier on high frequencies."""
        with torch.no_grad():
            if amplifier is None:
                theirs = self._predict(teacher_maps)
            else:
                theirs = predict(amplifier, [high_frequency(maps) for maps in teacher_maps])
        assert self.teacher is not None
        anchors, strides_px = anchor_points(teacher_maps, self.teacher.strides_px)
        boxes = [decode_distances(p["boxes"], anchors, strides_px).flatten(0, 1) for p in (ours, theirs)]
        logits = [p["scores"].transpose(1, 2).flatten(0, 1) for p in (ours, theirs)]
        loss = dense_implicit_loss(logits[0], logits[1], boxes[0], boxes[1])
        if "angle" in ours:
            confidence = logits[1].float().amax(dim=-1).sigmoid()
            loss = loss + angle_implicit_loss(ours["angle"].flatten(), theirs["angle"].flatten(), confidence)
        return loss


def anchor_points(maps: list[Tensor], strides_px: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Centres of all cells (A, 2) in cells of their level, x then y, and the stride of each (A,), P3 first."""
    from ultralytics.utils.tal import make_anchors

    floats = [maps_l.float() for maps_l in maps]
    points, strides = make_anchors(floats, strides_px, 0.5)
    return points, strides[:, 0]


def enclosing_boxes(boxes: Tensor) -> Tensor:
    """Upright boxes around labels: xywh (n, 4) or xywhr (n, 5, radians), of a square picture -> xyxy (n, 4)."""
    if boxes.shape[-1] == 5:
        cos, sin = boxes[:, 4].cos().abs(), boxes[:, 4].sin().abs()
        width, height = boxes[:, 2] * cos + boxes[:, 3] * sin, boxes[:, 2] * sin + boxes[:, 3] * cos
        boxes = torch.stack((boxes[:, 0], boxes[:, 1], width, height), dim=1)
    return box_convert(boxes.view(-1, 4), "cxcywh", "xyxy")
