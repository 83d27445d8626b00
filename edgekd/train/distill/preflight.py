"""Checks before the first epoch: what silently ruins a distillation is found on one batch, not after a night.

A built trainer goes in; nothing comes out but an error in one sentence, or lines for the log. The student's statistics
and gradients are as before afterwards.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import TrainingError
from edgekd.train.distill.student import DistilledDetector

LARGEST_GRID_SKEW = 0.05  # relative difference of the aspect ratios of a teacher's and a student's map


def check_before_training(
    model: DistilledDetector, batch: dict[str, Any], optimizer: torch.optim.Optimizer, ema: nn.Module
) -> list[str]:
    """Run every check on one training batch.

    Args:
        model: the wrapped student, in training mode.
        batch: on the model's device, pictures in 0..1.
        optimizer: of the run.
        ema: the moving average of the model.

    Returns:
        One line a check, for the log.

    Raises:
        TrainingError: pictures outside 0..1, a map of another shape, a trainable or registered teacher, a projector
            that nobody optimises or averages, a loss that is not finite or has no gradient.
    """
    _check_pictures(batch["img"])
    if model.objective is None or model.objective.teacher is None or not model.term_names:
        return ["no teacher: labels only"]
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    balance = model.balance.state()
    lines = [
        *model.objective.remarks,
        _check_teacher(model),
        _check_grids(model, batch["img"]),
        _check_projectors(model, optimizer, ema),
        _check_losses(model, batch),
    ]
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(statistics[name])
    model.zero_grad(set_to_none=True)
    model.balance.load_state(balance)
    model.balance.reset_epoch()
    return lines


def _check_pictures(images: Tensor) -> None:
    low, high = float(images.min()), float(images.max())
    if low < 0.0 or high > 1.0 or high <= 1.0 / 255:
        raise TrainingError(f"pictures range from {low:.3g} to {high:.3g}, expected 0 to 1; check the preprocessing")


def _check_teacher(model: DistilledDetector) -> str:
    assert model.objective is not None and model.objective.teacher is not None
    teacher = model.objective.teacher
    parameters = list(teacher.network.parameters())
    registered = {id(parameter) for parameter in model.parameters()}
    if any(parameter.requires_grad for parameter in parameters):
        raise TrainingError(f"the teacher {teacher.name} has trainable parameters; load it with edgekd.models.teachers")
    if any(module.training for module in teacher.network.modules()):
        raise TrainingError(f"the teacher {teacher.name} is in training mode; call eval() on it")
    if any(id(parameter) in registered for parameter in parameters):
        raise TrainingError(f"the teacher {teacher.name} is a part of the student; give a separate network")
    return f"teacher {teacher.name}: {sum(p.numel() for p in parameters):,} parameters, frozen, outside the student"


def _check_grids(model: DistilledDetector, images: Tensor) -> str:
    assert model.objective is not None and model.objective.teacher is not None
    teacher = model.objective.teacher
    maps = teacher.maps(images[:1])
    if len(maps) != len(model.levels):
        raise TrainingError(f"the teacher gives {len(maps)} maps, expected one for each of {len(model.levels)} levels")
    picture_aspect = images.shape[3] / images.shape[2]
    for level, channels, found in zip(model.levels, teacher.channels, maps, strict=True):
        if found.dim() != 4 or found.shape[1] != channels:
            raise TrainingError(
                f"the teacher's map of {level.name} is {tuple(found.shape)}, expected (N, {channels}, h, w); "
                "give a teacher whose channels are as announced"
            )
        if abs(found.shape[3] / found.shape[2] / picture_aspect - 1.0) > LARGEST_GRID_SKEW:
            raise TrainingError(
                f"the teacher's map of {level.name} is {found.shape[2]}x{found.shape[3]} for pictures of "
                f"{images.shape[2]}x{images.shape[3]}: the grids do not lie over each other; resize instead of cropping"
            )
    shapes = ", ".join(f"{lv.name} {m.shape[2]}x{m.shape[3]}" for lv, m in zip(model.levels, maps, strict=True))
    return f"teacher grids {shapes}, resampled to the student's"


def _check_projectors(model: DistilledDetector, optimizer: torch.optim.Optimizer, ema: nn.Module) -> str:
    optimised = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    averaged = dict(ema.named_parameters())
    for name, parameter in model.projector.named_parameters():
        if id(parameter) not in optimised:
            raise TrainingError(f"the projector's {name} is not in the optimizer; wrap the student before it is built")
        if f"projector.{name}" not in averaged:
            raise TrainingError(f"the projector's {name} is not in the moving average; wrap the student before it")
    return f"projectors of {', '.join(model.projector)}: optimised and averaged"


def _check_losses(model: DistilledDetector, batch: dict[str, Any]) -> str:
    losses, items = model.loss(batch)
    terms = dict(zip(model.term_names, losses[-len(model.term_names) :], strict=True))
    student = [p for p in model.student_model.parameters() if p.requires_grad]
    for name, term in terms.items():
        if not bool(torch.isfinite(term)):
            raise TrainingError(f"the loss {name} is {float(term):g} on the first batch; check teacher and precision")
        gradients = torch.autograd.grad(term, student, retain_graph=True, allow_unused=True)
        if not any(g is not None and bool(g.abs().sum() > 0) for g in gradients):
            raise TrainingError(f"the loss {name} gives the student no gradient; check its lambda and its levels")
    return "losses alive: " + ", ".join(f"{name} {float(value):.3g}" for name, value in items.items())
