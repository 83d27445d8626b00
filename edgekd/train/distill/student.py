"""The module that Ultralytics trains: a student, its projectors, and the losses of labels and teacher together.

It derives from Ultralytics' `DistillationModel`, so its trainer, validator and exporter know it as a wrapper, and
shares nothing else with it. The teacher is held by the objective, outside the module tree: it is never trained, copied
into the moving average or saved.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils.torch_utils import copy_attr

from edgekd.models.levels import Level, capture
from edgekd.train.distill.balance import GradientBalance
from edgekd.train.distill.objective import BatchView, Objective


def make_projector(kind: str, n_student: int, n_teacher: int) -> nn.Module:
    """1x1 convolution, or 1x1 - ReLU - 1x1 for `mlp`: (N, n_student, H, W) -> (N, n_teacher, H, W).

    Maps of equal width start with the identity: the student imitates the teacher from the first step, and not a random
    mixture of its channels.
    """
    if kind == "conv":
        convolution = nn.Conv2d(n_student, n_teacher, 1)
        if n_student == n_teacher:
            nn.init.dirac_(convolution.weight)
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
        return convolution
    return nn.Sequential(nn.Conv2d(n_student, n_teacher, 1), nn.ReLU(), nn.Conv2d(n_teacher, n_teacher, 1))


class DistilledDetector(DistillationModel):  # type: ignore[misc]
    """A student detector with one projector per level; `loss` is L_det plus the weighted terms of the objective.

    Args:
        student: an Ultralytics `DetectionModel`.
        levels: where the student is compared with the teacher.
        objective: the terms and the teacher.
        balance: their weights.
        autocast_dtype: dtype of the forward pass, None for float32; losses are float32 always.
    """

    def __init__(
        self,
        student: nn.Module,
        levels: list[Level],
        objective: Objective,
        balance: GradientBalance,
        autocast_dtype: torch.dtype | None = None,
    ) -> None:
        nn.Module.__init__(self)  # the base class would build a teacher of its own
        self.student_model = student
        self.teacher_model = None  # read by Ultralytics, which takes None for "stripped"
        copy_attr(self, student)
        self.levels = levels
        self.objective: Objective | None = objective
        self.balance = balance
        self.autocast_dtype = autocast_dtype
        self.term_names = tuple(objective.lambdas)
        teacher = objective.teacher
        channels = teacher.channels if teacher is not None and self.term_names else ()
        kind = objective.recipe.projector
        self.projector = nn.ModuleDict(
            {lv.name: make_projector(kind, lv.channels, c) for lv, c in zip(levels, channels, strict=True)}
            if channels
            else {}
        )

    def __getstate__(self) -> dict[str, Any]:
        """State for copies (the moving average): without the objective, which holds the teacher."""
        return {**self.__dict__, "objective": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state as it is; the base class would register hooks."""
        nn.Module.__setstate__(self, state)

    def fuse(self, verbose: bool = True, imgsz: int | list[int] = 640) -> nn.Module:
        """Fuse and return the bare student."""
        fused: nn.Module = self.student_model.fuse(verbose=verbose, imgsz=imgsz)
        return fused

    def loss(self, batch: dict[str, Any], preds: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of one batch.

        Args:
            batch: as Ultralytics collates it, pictures in 0..1.
            preds: the student's predictions, given by the validator only.

        Returns:
            A vector of losses multiplied by the batch size, to be summed, and the same losses by name, unmultiplied.
            The terms of the teacher are 0 outside training, so that both modes have the same names.
        """
        images = batch["img"]
        if not self.training or self.objective is None:
            preds = self.student_model(images) if preds is None else preds
            detection, items = self.student_model.loss(batch, preds)
            terms = {name: images.new_zeros(()) for name in self.term_names}
        else:
            detection, items, terms = self._training_losses(batch)
        n_pictures = images.shape[0]
        items |= {f"{name}_loss": term.detach() for name, term in terms.items()}
        return torch.cat([detection, *[n_pictures * term[None] for term in terms.values()]]), items

    def _training_losses(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """One step: forward, projection, the teacher's terms, the labels' loss, and the weights of the terms."""
        assert self.objective is not None
        images, layers = batch["img"], [level.layer for level in self.levels]
        dtype, is_taught = self.autocast_dtype, self.objective.is_active and bool(self.term_names)
        with torch.autocast(images.device.type, dtype or torch.bfloat16, enabled=dtype is not None):
            with capture(self.student_model, layers) as captured:
                predictions = self.student_model(images)
            if is_taught:
                maps = [captured[layer] for layer in layers]
                logits = predictions.get("one2many", predictions)["scores"]
                view = BatchView(batch, maps, self._project(maps), logits, self.objective.recipe)
                terms = self.objective.losses(view)
        detection, items = self.student_model.loss(batch, _in_float32(predictions))
        if not is_taught:
            return detection, items, {name: images.new_zeros(()) for name in self.term_names}
        n_pictures = images.shape[0]
        self.balance.observe(detection.sum(), {name: n_pictures * term for name, term in terms.items()}, maps)
        return detection, items, {name: self.balance.weights[name] * term for name, term in terms.items()}

    def _project(self, maps: list[Tensor]) -> list[Tensor]:
        if not self.projector:
            return []
        return [self.projector[level.name](m) for level, m in zip(self.levels, maps, strict=True)]


def _in_float32(predictions: Any) -> Any:
    if isinstance(predictions, Tensor):
        return predictions.float()
    if isinstance(predictions, dict):
        return {name: _in_float32(value) for name, value in predictions.items()}
    return [_in_float32(value) for value in predictions]
