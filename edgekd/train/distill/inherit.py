"""A student's first weights, taken from its teacher: evenly spaced channels of every layer.

A teacher and a narrower student of the same family go in; the student's layers then hold a part of the teacher's.
After "Initializing Models with Larger Ones" (Xu et al., ICLR 2024, arXiv 2311.18823): along every axis of every weight,
channel i of the student is channel floor(i * teacher / student) of the teacher. Where widths have a whole ratio this
rule agrees with itself through concatenations, splits and residual sums, because it depends on nothing but two sizes.
It costs no time in a training step. What it is worth has not been measured at equal time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import Attention

from edgekd.errors import TrainingError


def inherit_weights(student: Any, teacher: Any) -> int:
    """Overwrite the student's weights with evenly spaced channels of the teacher's, in place.

    Args:
        student: an Ultralytics `DetectionModel` with its class `names`; at most as wide as the teacher in every layer.
        teacher: another one with the same layers.

    Returns:
        The number of tensors that were taken over. Those that score classes keep the student's values where the class
        names differ, and those of angles where the teacher's boxes are upright.

    Raises:
        TrainingError: a layer of the student is missing in the teacher, or wider than there.
    """
    theirs = teacher.state_dict()
    has_other_classes = list(student.names.values()) != list(teacher.names.values())
    left = _class_tensors(student) if has_other_classes else set()
    left |= _angle_tensors(student, theirs)
    rows = _attention_rows(student, teacher)
    taken = {}
    for name, own in student.state_dict().items():
        if name in left:
            continue
        source = theirs.get(name)
        if (
            source is None
            or source.dim() != own.dim()
            or any(s > t for s, t in zip(own.shape, source.shape, strict=True))
        ):
            raise TrainingError(
                f"the student's {name} {tuple(own.shape)} is not a part of the teacher's "
                f"{None if source is None else tuple(source.shape)}; set start to own in the recipe, or give a teacher "
                "of the same family that is at least as wide"
            )
        taken[name] = _part(source.to(own), own.shape, rows.get(name))
    student.load_state_dict(taken, strict=False)
    return len(taken)


def evenly_spaced(n_teacher: int, n_student: int) -> Tensor:
    """The teacher's index of each of the student's channels (n_student,)."""
    return torch.arange(n_student) * n_teacher // n_student


def _part(source: Tensor, shape: torch.Size, rows: Tensor | None) -> Tensor:
    """A part of one tensor; weights (out, in, ...) are scaled by the share of inputs that is left out."""
    n_inputs = source.shape[1] if source.dim() > 1 else 1
    for axis, n_student in enumerate(shape):
        index = evenly_spaced(source.shape[axis], n_student)
        source = source.index_select(axis, rows if axis == 0 and rows is not None else index)
    return source * (n_inputs / shape[1]) if source.dim() > 1 else source


def _class_tensors(student: Any) -> set[str]:
    """Names of the weights and biases that have one row per class."""
    head = student.model[-1]
    last = {id(branch[-1]) for part in ("cv3", "one2one_cv3") for branch in (getattr(head, part, None) or ())}
    return {
        f"{name}.{kind}"
        for name, module in student.named_modules()
        if id(module) in last
        for kind in ("weight", "bias")
    }


def _angle_tensors(student: Any, theirs: dict[str, Tensor]) -> set[str]:
    """Names of an oriented student's tensors of angles that a teacher of upright boxes does not have."""
    from ultralytics.nn.modules.head import OBB

    if not isinstance(student.model[-1], OBB):
        return set()
    parts = {"cv4", "one2one_cv4"}
    return {name for name in student.state_dict() if name not in theirs and name.split(".")[2] in parts}


def _attention_rows(student: nn.Module, teacher: nn.Module) -> dict[str, Tensor]:
    """Rows of the teacher's query, key and value weights, spaced one by one: the number of heads differs."""
    modules = dict(teacher.named_modules())
    rows = {}
    for name, own in student.named_modules():
        source = modules.get(name)
        if not isinstance(own, Attention) or not isinstance(source, Attention):
            continue
        index = torch.empty(own.qkv.conv.out_channels, dtype=torch.long)
        for ours, theirs in zip(_parts_of(own), _parts_of(source), strict=True):
            index[ours] = theirs[evenly_spaced(len(theirs), len(ours))]
        for tensor in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
            rows[f"{name}.qkv.{tensor}"] = index
    return rows


def _parts_of(attention: Any) -> list[Tensor]:
    """Rows of all heads' queries, keys and values: each head holds its three one after another."""
    n_heads, sizes = attention.num_heads, [attention.key_dim, attention.key_dim, attention.head_dim]
    by_head = torch.arange(n_heads * sum(sizes)).view(n_heads, sum(sizes))
    return [part.reshape(-1) for part in by_head.split(sizes, dim=1)]
