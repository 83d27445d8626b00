"""The averaged weights of a run: what is validated, gated and kept.

A network, its freeze policy and the stages go in; the names of everything that changes, and their moving average, come
out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import nn

from edgekd.train.finetune.freeze import FreezePolicy, apply_policy
from edgekd.train.finetune.quality import Mask


@dataclass(frozen=True)
class Stage:
    """A stage of the freeze policy and how long it lasts."""

    number: int
    n_steps: int


class AveragedWeights:
    """Exponential moving average of everything in a network that changes: trained parameters and running statistics."""

    def __init__(self, model: nn.Module, names: Sequence[str], decay: float) -> None:
        self.decay = decay
        self.n_updates = 0
        state = model.state_dict()
        self.values = {name: state[name].detach().clone() for name in names}

    def update(self, model: nn.Module) -> None:
        """Take one step towards the network's weights; the first steps average over what there is."""
        self.n_updates += 1
        decay = min(self.decay, (1 + self.n_updates) / (10 + self.n_updates))
        state = model.state_dict()
        for name, value in self.values.items():
            if value.is_floating_point():
                value.lerp_(state[name].detach(), 1 - decay)
            else:
                value.copy_(state[name])

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The network with the averaged weights, for validation; the trained ones return afterwards."""
        trained = {name: model.state_dict()[name].detach().clone() for name in self.values}
        model.load_state_dict(self.values, strict=False)
        model.eval()
        try:
            yield
        finally:
            model.load_state_dict(trained, strict=False)


def changing_names(model: nn.Module, policy: FreezePolicy, stages: Sequence[Stage]) -> list[str]:
    """Names of the parameters that train in any of `stages` and of all buffers, in the order of the state dict."""
    trained: set[str] = set()
    for stage in stages:
        apply_policy(model, policy, stage.number)
        trained |= {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    parameters = {name for name, _ in model.named_parameters()}
    return [name for name in model.state_dict() if name in trained or name not in parameters]


def fingerprint(model: nn.Module, truths: Sequence[Mask] | None) -> str:
    """What a run starts from and is gated on: sha256 of all weights and of the true masks of the retention pictures."""
    digest = hashlib.sha256()
    for name, value in model.state_dict().items():
        digest.update(name.encode() + str(tuple(value.shape)).encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    for truth in truths or ():
        digest.update(str(truth.shape).encode() + np.packbits(truth).tobytes())
    return digest.hexdigest()
