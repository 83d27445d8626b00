"""The high-frequency amplifier of DS2D2: the teacher's head, trained on the detail bands of its own features.

The published method builds the teacher's network, freezes backbone and neck, feeds the head with `high_frequency(maps)`
and trains it with the plain detection loss. A teacher and a data set go in; a plain checkpoint comes out whose head
`edgekd.models.teachers.detector_teacher` uses as amplifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekd.data.check import check_dataset
from edgekd.errors import InputError
from edgekd.losses.ds2d2 import high_frequency
from edgekd.train.distill.recipes import Schedule
from edgekd.train.distill.trainer import ReproducibleTrainer, RunOptions, base_settings, check_device
from edgekd.train.run_folder import locked


@dataclass(frozen=True, kw_only=True)
class AmplifierJob:
    """One training of an amplifier; `data` must have the teacher's classes."""

    data: Path
    teacher: Path
    output: Path
    schedule: Schedule = Schedule()
    seed: int = 0
    device: str = "cpu"


class HighFrequencyInput:
    """Forward pre-hook of a detection head: its maps are replaced by their high frequencies."""

    def __call__(self, _head: nn.Module, inputs: tuple[list[Tensor], ...]) -> tuple[list[Tensor]]:
        """Map the head's list of maps (N, C_l, H_l, W_l) to detail maps of the same shapes."""
        return ([high_frequency(maps) for maps in inputs[0]],)


class AmplifierTrainer(ReproducibleTrainer):
    """Trains the head alone; checkpoints are written without the hook (see `plain_checkpoint`)."""

    def set_model_attributes(self) -> None:
        """Hook the head and freeze everything before it."""
        super().set_model_attributes()
        head: Any = self.model.model[-1]
        head.register_forward_pre_hook(HighFrequencyInput())
        self.args.freeze = list(range(head.i))

    def final_eval(self) -> None:
        """Keep the last validation: without the hook, `best.pt` would see what it was not trained on."""


def train_amplifier(job: AmplifierJob) -> dict[str, float]:
    """Run a job; `weights/best.pt` of its output is the amplifier.

    Returns:
        Validation metrics of the last epoch, of the head on high frequencies.

    Raises:
        InputError: the teacher does not exist.
        DataError, ModelError, TrainingError: see the message.
    """
    if not job.teacher.is_file():
        raise InputError(f"{job.teacher} does not exist; give the checkpoint (.pt) of the teacher")
    check_device(job.device)
    check_dataset(job.data)
    settings = base_settings(job.data, job.output, job.schedule, job.device, job.seed) | {"model": str(job.teacher)}
    with locked(job.output):
        trainer = AmplifierTrainer(RunOptions(job.schedule.accumulate), overrides=settings)
        trainer.train()
    return {name: float(value) for name, value in trainer.metrics.items() if name.startswith("metrics/")}
