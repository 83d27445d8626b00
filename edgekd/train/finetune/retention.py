"""What fine-tuning must not cost: masks before and after on the same pictures, per kind of prompt, with a gate.

In: masks that a network gave before and gives after (and the truths, where there are any). Out: `Retention` per kind:
how much the two agree, and what share of the quality is kept. `check_retention` stops a run that forgets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgekd.errors import GateFailed
from edgekd.train.finetune.quality import Mask, mask_agreement

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


def check_retention(by_kind: Mapping[str, Retention], stage: int, keep: float = KEEP) -> None:
    """Raise GateFailed when a kind of prompt keeps less than `keep`; the message names the worst."""
    if not by_kind:
        return
    worst = min(by_kind, key=lambda kind: by_kind[kind].kept)
    kept = by_kind[worst].kept
    if kept < keep:
        raise GateFailed(
            f"after stage {stage} the prompt '{worst}' keeps {100 * kept:.1f} % of what it could do before, expected "
            f"{100 * keep:.0f} %; lower --lr or --steps, or give --keep a lower limit if the loss is intended"
        )
