"""The distillation terms of one batch: student maps and a frozen teacher in, unweighted scalars by name out.

A term is a function of what the student and what the teacher show of a batch: `(view, teacher) -> scalar`. Which terms
a run has is decided once, in `choose_terms`; a step then reads `Objective.losses` from top to bottom:

    teacher's maps  ->  one grid for both  ->  {term.name: term.loss(view, teacher)}
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_convert

from edgekd.choices import DistillMethod
from edgekd.errors import TrainingError
from edgekd.losses.attention import ATTENTION_DISTANCES, attention_loss
from edgekd.losses.ds2d2 import band_grid, disw, explicit_fft_loss, explicit_loss, high_frequency
from edgekd.losses.feature import DISTANCES, align_grid, feature_loss
from edgekd.losses.implicit import angle_implicit_loss, decode_distances, dense_implicit_loss
from edgekd.losses.logits import binary_kl, softmax_kl
from edgekd.models.teachers import RawPredictions, Teacher, predict
from edgekd.train.distill.feature_cache import FeatureCache
from edgekd.train.distill.recipes import Recipe

TRAIN_AMPLIFIER = "edgekd distill train-amplifier --data DATA.yaml --teacher TEACHER.pt -o FOLDER"


@dataclass(frozen=True)
class BatchView:
    """What the terms read of the student on one batch.

    Attributes:
        batch: as Ultralytics collates it: `img` (N, 3, H, W) in 0..1, `bboxes` xywh (n, 4) or xywhr (n, 5) as
            fractions, `batch_idx` (n,).
        maps: student maps, one (N, C_l, H_l, W_l) a level.
        projected: the same in the teacher's channels, P(S).
        class_logits: of the student's head (N, n_classes, A).
        recipe: all numbers.
    """

    batch: dict[str, Any]
    maps: list[Tensor]
    projected: list[Tensor]
    class_logits: Tensor
    recipe: Recipe


@dataclass(frozen=True)
class TeacherView:
    """What the terms read of the teacher: the network, and its maps on the grid shared with the student."""

    teacher: Teacher
    maps: list[Tensor]

    def head_on(self, maps: list[Tensor]) -> RawPredictions:
        """What the teacher's frozen head predicts from any maps in its channels."""
        assert self.teacher.head is not None, "chosen only for teachers with a head"
        return predict(self.teacher.head, maps)


@dataclass(frozen=True)
class Term:
    """One term: its name, its lambda, and the loss as a function of both views."""

    name: str
    factor: float
    loss: Callable[[BatchView, TeacherView], Tensor]


# --- the terms of the method `feature`


def feature_term(view: BatchView, teacher: TeacherView) -> Tensor:
    """L_feat: distance of P(S) and T, summed over the levels with their weights."""
    return feature_loss(view.projected, teacher.maps, DISTANCES[view.recipe.distance], view.recipe.level_weights)


def attention_term(view: BatchView, teacher: TeacherView) -> Tensor:
    """L_att: distance of the attention maps of P(S) and T, by default ||A_S - A_T||^2."""
    return attention_loss(view.projected, teacher.maps, ATTENTION_DISTANCES[view.recipe.attention])


def logits_term(view: BatchView, teacher: TeacherView) -> Tensor:
    """L_kl: class logits of both heads, each anchor weighted by the teacher's confidence."""
    with torch.no_grad():
        theirs = teacher.head_on(teacher.maps)["scores"].transpose(1, 2)
    ours = view.class_logits.transpose(1, 2)
    if ours.shape != theirs.shape:
        raise TrainingError(
            f"the student has {ours.shape[1]} anchors and the teacher {theirs.shape[1]}, and logits are compared one "
            "by one; set grid to student in the recipe"
        )
    confidence = theirs.float().amax(dim=-1).sigmoid()
    kl = softmax_kl if view.recipe.logits == "softmax" else binary_kl
    return kl(ours, theirs, view.recipe.temperature, confidence)


# --- the terms of the method `ds2d2`


def explicit_term(view: BatchView, teacher: TeacherView) -> Tensor:
    """L_low and L_high: P(S) and T band by band, every cell weighted by DISW."""
    recipe = view.recipe
    if recipe.spectrum == "fourier":
        return explicit_fft_loss(view.projected, teacher.maps, recipe.weight_low, recipe.weight_high)
    weights: list[Tensor | None] = [None] * len(view.projected)
    if recipe.is_cell_weighted:
        boxes = enclosing_boxes(view.batch["bboxes"]).to(view.projected[0].device)
        picture = view.batch["batch_idx"].to(boxes.device)
        n_pictures = view.projected[0].shape[0]
        grids = [band_grid((maps.shape[2], maps.shape[3])) for maps in view.projected]
        weights = [disw(boxes, picture, n_pictures, grid, recipe.reading) for grid in grids]
    return explicit_loss(view.projected, teacher.maps, recipe.weight_low, recipe.weight_high, weights)


def full_term(view: BatchView, teacher: TeacherView) -> Tensor:
    """L_full: what the teacher's own head predicts from the maps of both."""
    ours = teacher.head_on(_head_inputs(view, teacher))
    with torch.no_grad():
        theirs = teacher.head_on(teacher.maps)
    return _implicit_loss(ours, theirs, teacher)


def high_term(view: BatchView, teacher: TeacherView) -> Tensor:
    """L_hf: what the amplifier predicts from the high frequencies of the maps of both."""
    amplifier = teacher.teacher.amplifier
    assert amplifier is not None, "chosen only with an amplifier"
    ours = predict(amplifier, [high_frequency(maps) for maps in _head_inputs(view, teacher)])
    with torch.no_grad():
        theirs = predict(amplifier, [high_frequency(maps) for maps in teacher.maps])
    return _implicit_loss(ours, theirs, teacher)


def _head_inputs(view: BatchView, teacher: TeacherView) -> list[Tensor]:
    """The student's own maps where they have the teacher's channels, as published; P(S) where they have not."""
    triples = zip(view.maps, view.projected, teacher.maps, strict=True)
    return [own if own.shape[1] == theirs.shape[1] else projected for own, projected, theirs in triples]


def _implicit_loss(ours: RawPredictions, theirs: RawPredictions, teacher: TeacherView) -> Tensor:
    anchors, strides_px = anchor_points(teacher.maps, teacher.teacher.strides_px)
    boxes = [decode_distances(p["boxes"], anchors, strides_px).flatten(0, 1) for p in (ours, theirs)]
    logits = [p["scores"].transpose(1, 2).flatten(0, 1) for p in (ours, theirs)]
    loss = dense_implicit_loss(logits[0], logits[1], boxes[0], boxes[1])
    if "angle" in ours:
        confidence = logits[1].float().amax(dim=-1).sigmoid()
        loss = loss + angle_implicit_loss(ours["angle"].flatten(), theirs["angle"].flatten(), confidence)
    return loss


# --- which terms a run has


def choose_terms(method: DistillMethod, recipe: Recipe, teacher: Teacher) -> tuple[list[Term], list[str]]:
    """The terms with a lambda above 0, and lines that say which ones this teacher cannot have.

    A term that the recipe asks for by name and that the teacher cannot have is an error; one that only the defaults
    ask for is left out, and a line says so.

    Raises:
        TrainingError: see above; or no term is left.
    """
    no_head = None if teacher.head is not None else f"the teacher {teacher.name} has no detection head for P3, P4, P5"
    no_amplifier = None if teacher.amplifier is not None else f"no amplifier was given: {TRAIN_AMPLIFIER}"
    table: dict[str, list[tuple[str, Callable[[BatchView, TeacherView], Tensor], str | None]]] = {
        "none": [],
        "inherit": [],
        "feature": [
            ("feature", feature_term, None),
            ("attention", attention_term, None),
            ("logits", logits_term, no_head),
        ],
        "ds2d2": [
            ("explicit", explicit_term, None),
            ("full", full_term, no_head),
            ("high", high_term, no_head or no_amplifier),
        ],
    }
    terms, left_out = [], []
    for name, loss, obstacle in table[method]:
        factor = float(getattr(recipe, f"lambda_{name}"))
        if factor == 0.0:
            continue
        if obstacle is None:
            terms.append(Term(name, factor, loss))
        elif f"lambda_{name}" in recipe.model_fields_set:
            raise TrainingError(f"the recipe has lambda_{name} {factor:g} and {obstacle}; or set that lambda to 0")
        else:
            left_out.append(f"left out: {name} ({obstacle})")
    if method not in ("none", "inherit") and not terms:
        raise TrainingError(
            f"the method {method} has no term left with this recipe and the teacher {teacher.name}; "
            "raise one of its lambdas or give another teacher"
        )
    return terms, left_out


class Objective:
    """The terms of one method with one teacher; without a teacher there are none.

    Attributes:
        terms: in the order of the log.
        remarks: lines for the log on what the teacher cannot teach and what the recipe cannot change.
        cache: of the teacher's maps, or None.
        is_active: False once the teacher's epochs are over; then every term is 0 and costs nothing.

    Raises:
        TrainingError: see `choose_terms`; or the logits of other classes would be compared.
    """

    def __init__(
        self, method: DistillMethod, recipe: Recipe, teacher: Teacher | None, class_names: tuple[str, ...]
    ) -> None:
        self.recipe = recipe
        self.teacher = teacher if method not in ("none", "inherit") else None
        self.cache: FeatureCache | None = None
        self.is_active = True
        self.terms: list[Term] = []
        self.remarks: list[str] = []
        if self.teacher is None:
            return
        self.terms, self.remarks = choose_terms(method, recipe, self.teacher)
        if "logits" in self.lambdas and self.teacher.class_names != class_names:
            raise TrainingError(
                f"the teacher {self.teacher.name} knows {len(self.teacher.class_names)} classes and the data "
                f"{len(class_names)} other ones; train the teacher on this data, or set lambda_logits to 0"
            )
        if len(self.terms) == 1 and recipe.target_share > 0:
            self.remarks.append(f"{self.terms[0].name} is the only term: target_share sets its weight, not its lambda")

    def teacher_maps(self, batch: dict[str, Any]) -> list[Tensor]:
        """The teacher's maps of a batch, through the cache where there is one and the batch brings its keys."""
        assert self.teacher is not None
        if self.cache is None or "view_keys" not in batch:
            return self.teacher.maps(batch["img"])
        return self.cache.maps(self.teacher.maps, batch["img"], batch["view_keys"])

    @property
    def lambdas(self) -> dict[str, float]:
        """The relative weight of each term by name."""
        return {term.name: term.factor for term in self.terms}

    def losses(self, view: BatchView) -> dict[str, Tensor]:
        """Every term for one batch, unweighted, float32."""
        if self.teacher is None:
            return {}
        theirs = self.teacher_maps(view.batch)
        view, seen = on_one_grid(view, self.teacher, theirs)
        return {term.name: term.loss(view, seen) for term in self.terms}


def on_one_grid(view: BatchView, teacher: Teacher, theirs: Sequence[Tensor]) -> tuple[BatchView, TeacherView]:
    """Both views on the grid that the recipe names: the teacher's maps resampled to the student's, or the reverse."""
    if view.recipe.grid == "student":
        maps = [align_grid(t, (s.shape[2], s.shape[3])) for s, t in zip(view.projected, theirs, strict=True)]
        return view, TeacherView(teacher, maps)
    sizes = [(t.shape[2], t.shape[3]) for t in theirs]
    resampled = replace(
        view,
        maps=[align_grid(s, size) for s, size in zip(view.maps, sizes, strict=True)],
        projected=[align_grid(s, size) for s, size in zip(view.projected, sizes, strict=True)],
    )
    return resampled, TeacherView(teacher, list(theirs))


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
