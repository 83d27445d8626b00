"""Which parameters of a network train in which stage: a table of name patterns, checked before anything runs.

In: a network and a `FreezePolicy`. Out: `requires_grad` set, frozen parts in eval mode, and a `PartCount` per part.
A parameter belongs to the first part whose pattern matches its name. A part that matches nothing, a parameter that no
part claims and a count that differs from the expected one are refused: a renamed module must never train by accident.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from torch import nn

from edgekd.errors import TrainingError

STAGES = (1, 2, 3)


@dataclass(frozen=True)
class Part:
    """Rows of the table.

    Attributes:
        name: what it is, for people.
        patterns: shell patterns on parameter names (`*` crosses dots).
        stages: the stages in which it trains; empty is frozen.
        n_parameters: expected count, or None where any count will do (configurations of another size).
    """

    name: str
    patterns: tuple[str, ...]
    stages: frozenset[int] = frozenset()
    n_parameters: int | None = None


@dataclass(frozen=True)
class FreezePolicy:
    """The table of one network: `model` names it in messages."""

    model: str
    parts: tuple[Part, ...]

    def without_counts(self) -> FreezePolicy:
        """The same table for a configuration of another size: patterns must still match, counts are free."""
        return replace(self, parts=tuple(replace(part, n_parameters=None) for part in self.parts))


@dataclass(frozen=True)
class PartCount:
    """Parameters of one part."""

    name: str
    n_parameters: int
    trainable: bool


def count_parts(model: nn.Module, policy: FreezePolicy, stage: int) -> list[PartCount]:
    """Parameters per part, in the order of the table. Raises TrainingError when the table does not fit the network."""
    owners = _owners(model, policy)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    counts = []
    for part in policy.parts:
        n = sum(sizes[name] for name, owner in owners.items() if owner is part)
        if n == 0:
            raise TrainingError(
                f"the part '{part.name}' of the {policy.model} freeze policy matches no parameter "
                f"({', '.join(part.patterns)}); correct its pattern or load the network it was written for"
            )
        if part.n_parameters is not None and n != part.n_parameters:
            raise TrainingError(
                f"the part '{part.name}' of the {policy.model} freeze policy holds {n:,} parameters, expected "
                f"{part.n_parameters:,}; load the network it was written for or correct the policy"
            )
        counts.append(PartCount(part.name, n, stage in part.stages))
    return counts


def apply_policy(model: nn.Module, policy: FreezePolicy, stage: int) -> list[PartCount]:
    """Set `requires_grad` for `stage` and return the counts; call `set_modes` to put the frozen parts in eval mode.

    Raises TrainingError as `count_parts`, before anything is changed.
    """
    if stage not in STAGES:
        raise TrainingError(f"stage {stage} does not exist; choose from {', '.join(map(str, STAGES))} with --stages")
    counts = count_parts(model, policy, stage)
    owners = _owners(model, policy)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage in owners[name].stages)
    return counts


def set_modes(model: nn.Module) -> None:
    """Put modules that train into train mode and all others into eval mode.

    A module trains when one of its own parameters does; modules without parameters (dropout) follow what they sit in.
    Batch norms of frozen parts keep their statistics and frozen dropout stays off, so frozen parts are bit-identical
    functions before and after.
    """
    model.eval()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        everything = list(module.parameters())
        if (own and any(p.requires_grad for p in own)) or (everything and all(p.requires_grad for p in everything)):
            module.train()


def counts_table(counts: Sequence[PartCount]) -> list[str]:
    """Lines for people: parameters per part and in total, and what share trains."""
    total = sum(count.n_parameters for count in counts)
    trainable = sum(count.n_parameters for count in counts if count.trainable)
    width = max(len(count.name) for count in counts)
    lines = [
        f"{count.name:<{width}}  {count.n_parameters:>13,}  {'trains' if count.trainable else 'frozen'}"
        for count in counts
    ]
    return [*lines, f"{'trainable':<{width}}  {trainable:>13,}  of {total:,} ({100 * trainable / total:.2f} %)"]


def _owners(model: nn.Module, policy: FreezePolicy) -> dict[str, Part]:
    owners = {}
    for name, _ in model.named_parameters():
        part = next((p for p in policy.parts if any(fnmatchcase(name, pattern) for pattern in p.patterns)), None)
        if part is None:
            raise TrainingError(
                f"no part of the {policy.model} freeze policy claims the parameter {name}; "
                "add a pattern or load the network it was written for"
            )
        owners[name] = part
    return owners
