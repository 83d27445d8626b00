"""Gradient shares: how much each loss moves the student, and the weights that hold it to a target.

A distillation weight means nothing by itself: the same number starves one teacher and swamps another. What counts is
the share of a term in the gradient that reaches the student's feature maps. It is measured on some batches of every
epoch, logged, and used to set the weights, so a recipe names shares, not magic numbers.

Losses and feature maps come in; one weight per term, and rows for the log, come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

STARVED_SHARE = 0.001
SWAMPING_SHARE = 0.5
LARGEST_STEP = 2.0  # a weight changes at most by this factor from one epoch to the next, after the first measurement


@dataclass(frozen=True)
class TermRow:
    """One term of the loss in one epoch; the detection loss is the row `detection`.

    Attributes:
        epoch: from 1.
        term: its name.
        value: mean of the unweighted loss, times the batch size, as Ultralytics adds losses up.
        weight: what it was multiplied with.
        gradient_norm: mean L2 norm of the unweighted gradient at the student's maps.
        share: weight x gradient_norm over the sum of these of all terms, 0..1.
    """

    epoch: int
    term: str
    value: float
    weight: float
    gradient_norm: float
    share: float

    def warning(self) -> str | None:
        """Say what is wrong with this share, or None."""
        if self.term == "detection":
            return None
        if self.share < STARVED_SHARE:
            return f"{self.term} has {self.share:.2%} of the gradient and teaches nothing; raise its weight"
        if self.share > SWAMPING_SHARE:
            return f"{self.term} has {self.share:.0%} of the gradient and drowns the labels; lower its weight"
        return None


class GradientBalance:
    """Weights of the distillation terms, held to a share of the gradient.

    Args:
        lambdas: the relative weights of the terms, lambda_f, lambda_a and so on.
        target_share: sum of the shares of all terms, 0..1, split in proportion to the lambdas; 0 leaves the lambdas as
            plain factors of the losses.
        final_share: what target_share becomes in the last epoch, in equal steps; None keeps it.
        n_epochs: of the run.
        every: batches from one measurement to the next; a measurement costs one more backward pass through the head.
    """

    def __init__(
        self,
        lambdas: dict[str, float],
        target_share: float,
        final_share: float | None = None,
        n_epochs: int = 1,
        every: int = 16,
    ) -> None:
        self.lambdas = dict(lambdas)
        self.target_share = target_share
        self.final_share = target_share if final_share is None else final_share
        self.n_epochs = n_epochs
        self.every = every
        self.weights = dict(lambdas)
        self.is_calibrated = target_share == 0.0
        self.reset_epoch()

    def reset_epoch(self) -> None:
        """Forget the measurements of the epoch."""
        self._n_batches = 0
        self._measured: list[dict[str, tuple[float, float]]] = []

    def observe(self, detection: Tensor, terms: dict[str, Tensor], maps: Sequence[Tensor]) -> None:
        """Count a batch and, when it is due, measure values and gradient norms.

        Args:
            detection: scalar, as it enters the total.
            terms: unweighted scalars, as they would enter the total with weight 1.
            maps: student feature maps that all of them depend on, with a graph.
        """
        is_due = self._n_batches % self.every == 0
        self._n_batches += 1
        if not is_due or not terms:
            return
        losses = {"detection": detection, **terms}
        norms = torch.stack([_gradient_norm(loss, maps) for loss in losses.values()])
        if dist.is_initialized():
            dist.all_reduce(norms)
            norms = norms / dist.get_world_size()
        values = [float(loss.detach()) for loss in losses.values()]
        self._measured.append(dict(zip(losses, zip(values, norms.tolist(), strict=True), strict=True)))
        if not self.is_calibrated:
            self._calibrate(float("inf"), self.target_share)
            self.is_calibrated = True

    def close_epoch(self, epoch: int) -> list[TermRow]:
        """Rows of the epoch's log; then the weights move towards the target share for the next epoch."""
        if not self._measured:
            return []
        means = self._means()
        weighted = {name: self.weights.get(name, 1.0) * norm for name, (_, norm) in means.items()}
        total = sum(weighted.values()) or 1.0
        rows = [
            TermRow(epoch, name, value, self.weights.get(name, 1.0), norm, weighted[name] / total)
            for name, (value, norm) in means.items()
        ]
        if self.target_share > 0.0:
            self._calibrate(LARGEST_STEP, self.share_of(epoch + 1))
        self.reset_epoch()
        return rows

    def share_of(self, epoch: int) -> float:
        """Target of an epoch from 1, on the line from target_share to final_share."""
        progress = min(epoch - 1, self.n_epochs - 1) / max(self.n_epochs - 1, 1)
        return self.target_share + progress * (self.final_share - self.target_share)

    def _means(self) -> dict[str, tuple[float, float]]:
        n = len(self._measured)
        return {
            name: (sum(m[name][0] for m in self._measured) / n, sum(m[name][1] for m in self._measured) / n)
            for name in self._measured[0]
        }

    def _calibrate(self, largest_step: float, target: float) -> None:
        """Solve weight_i g_i = share_i / (1 - target) g_det for every term whose gradient is not zero."""
        means = self._means()
        detection_norm = means["detection"][1]
        sum_of_lambdas = sum(self.lambdas.values())
        for name, factor in self.lambdas.items():
            norm = means[name][1]
            if norm == 0.0 or detection_norm == 0.0:
                continue
            share = target * factor / sum_of_lambdas
            wanted = share / (1.0 - target) * detection_norm / norm
            now = self.weights[name]
            self.weights[name] = min(max(wanted, now / largest_step), now * largest_step)

    def state(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"weights": dict(self.weights), "is_calibrated": self.is_calibrated}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over the weights of an interrupted run."""
        self.weights = {name: float(state["weights"][name]) for name in self.lambdas}
        self.is_calibrated = bool(state["is_calibrated"])


def overshoot(rows: Sequence[TermRow], target: float) -> str | None:
    """Say that all terms together had at least twice their share; None where they had not, or target 0."""
    share = sum(row.share for row in rows if row.term != "detection")
    if target == 0.0 or share < 2 * target:
        return None
    return (
        f"the teacher had {share:.0%} of the gradient and was to have {target:.0%}; the weights change by at most "
        f"{LARGEST_STEP:g} times per epoch"
    )


def rows_to_csv(rows: Sequence[TermRow], header: bool) -> str:
    """Rows as CSV lines, with the column names first if `header`."""
    lines = [",".join(TermRow.__dataclass_fields__)] if header else []
    lines += [",".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in asdict(row).values()) for row in rows]
    return "".join(f"{line}\n" for line in lines)


def _gradient_norm(loss: Tensor, maps: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(loss, list(maps), retain_graph=True, allow_unused=True)
    squares = [g.float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else loss.new_zeros(())
