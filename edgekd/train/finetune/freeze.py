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
    """The table of one network.

    Attributes:
        model: names it in messages.
        parts: the rows.
        fixed_norms: batch norms keep their statistics where they train as well. The network was trained before: the
            statistics of a few crops would replace those of its whole training within twenty steps, and with them what
            it computes.
    """

    model: str
    parts: tuple[Part, ...]
    fixed_norms: bool = False

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
        raise TrainingError(f"stages names {stage}, expected some of {', '.join(map(str, STAGES))}")
    counts = count_parts(model, policy, stage)
    owners = _owners(model, policy)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(stage in owners[name].stages)
    return counts


def set_modes(model: nn.Module, fixed_norms: bool = False) -> None:
    """Put modules that train into train mode and all others, with `fixed_norms` all batch norms too, into eval mode.

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
    for module in model.modules():
        if fixed_norms and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


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


# The tables, with the counts of the released sizes. Stages: 1 adapter and last vision blocks, 2 mask head and presence,
# 3 joint. Parts that can never receive a gradient are named and kept frozen, so that distributed training needs no
# search for unused parameters: the third pixel-decoder level of SAM3 (three levels, two of them upsampled) and the
# fourth neck level (dropped before use).
_ADAPT = frozenset({1, 3})
_HEAD = frozenset({2, 3})
_PRESENCE = frozenset({2})

ADAPTER_PATTERN = "*.adapter.*"
SAM3_BLOCKS = 32
N_TRAINED_BLOCKS = 6


def _last_blocks(n_blocks: int) -> tuple[str, ...]:
    return tuple(f"vision_encoder.backbone.layers.{i}.*" for i in range(n_blocks - N_TRAINED_BLOCKS, n_blocks))


def sam3_of_depth(n_blocks: int) -> FreezePolicy:
    """The SAM3 table for a configuration with another number of vision blocks: same parts, no counts."""
    parts = [replace(p, patterns=_last_blocks(n_blocks)) if p.name == _BLOCKS else p for p in SAM3.parts]
    return FreezePolicy(SAM3.model, tuple(parts)).without_counts()


_BLOCKS = "last 6 vision blocks"

SAM3 = FreezePolicy(
    "SAM3",
    (
        Part("spectral adapter", (ADAPTER_PATTERN,), _ADAPT, 495_078),
        Part(_BLOCKS, _last_blocks(SAM3_BLOCKS), _ADAPT, 83_445_504),
        Part("vision neck level 3 (unused)", ("vision_encoder.neck.fpn_layers.3.*",), n_parameters=852_480),
        Part("vision encoder, rest", ("vision_encoder.*",), n_parameters=369_740_800),
        Part("text encoder", ("text_encoder.*", "text_projection.*"), n_parameters=353_724_672),
        Part("geometry encoder", ("geometry_encoder.*",), n_parameters=8_083_456),
        Part("fusion encoder", ("detr_encoder.*",), n_parameters=9_472_512),
        Part("presence", ("detr_decoder.presence_*",), _PRESENCE, 132_609),
        Part("decoder", ("detr_decoder.*",), n_parameters=11_442_484),
        Part("scoring", ("dot_product_scoring.*",), n_parameters=1_182_976),
        Part(
            "pixel decoder level 2 (unused)",
            ("mask_decoder.pixel_decoder.conv_layers.2.*", "mask_decoder.pixel_decoder.norms.2.*"),
            n_parameters=590_592,
        ),
        Part("mask head", ("mask_decoder.*",), _HEAD, 1_708_289),
    ),
)

SAM3_TRACKER = FreezePolicy(
    "SAM3 tracker",
    (
        Part("spectral adapter", (ADAPTER_PATTERN,), _ADAPT, 495_078),
        Part(_BLOCKS, _last_blocks(SAM3_BLOCKS), _ADAPT, 83_445_504),
        Part("vision neck level 3 (unused)", ("vision_encoder.neck.fpn_layers.3.*",), n_parameters=852_480),
        Part("vision encoder, rest", ("vision_encoder.*",), n_parameters=369_740_800),
        Part("prompt encoder", ("prompt_encoder.*", "no_memory_embedding"), n_parameters=6_476),
        Part("mask head", ("mask_decoder.*",), _HEAD, 4_215_109),
    ),
)

TINYSAM = FreezePolicy(
    "TinySAM",
    (
        Part("spectral adapter", (ADAPTER_PATTERN,), _ADAPT, 165_026),
        Part("vision stage 3", ("image_encoder.backbone.stages_3.*",), _ADAPT, 2_632_340),
        Part("neck", ("image_encoder.neck.*",), _ADAPT, 672_768),
        Part("vision encoder, rest", ("image_encoder.*",), n_parameters=2_438_784),
        Part("prompt encoder", ("prompt_encoder.*",), n_parameters=6_220),
        Part("mask head", ("mask_decoder.*",), _HEAD, 4_058_340),
    ),
    fixed_norms=True,
)

_ALWAYS = frozenset({1, 2, 3})

TINYSAM_FROM_NOTHING = FreezePolicy(
    "TinySAM from random weights",
    (
        Part("vision encoder", ("tinysam.image_encoder.*",), _ALWAYS),
        Part("prompt encoder", ("tinysam.prompt_encoder.*",), _ALWAYS),
        Part("mask head", ("tinysam.mask_decoder.*",), _ALWAYS),
        Part("auxiliary heads (training only)", ("auxiliary.*",), _ALWAYS),
    ),
)
