"""Fine-tuning of a promptable segmenter in stages: one loop for TinySAM and SAM3.

In: a `SegmenterTask` (network, freeze policy, losses, validation) and a `FinetuneConfig`. Out, in the run's folder:
`resume.pt` (the whole state, at any moment), `steps.csv`, and `report.json` with the quality before and after, the
retention of every stage and the parameters trained. A step's random numbers depend on seed, stage and step alone, so a
run cut in two equals one run.
"""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.environment import has_bf16
from edgekd.errors import Interrupted, TrainingError
from edgekd.train.checkpoint import STATE_FORMAT, read_state, write_atomically
from edgekd.train.finetune.averaged import AveragedWeights, Stage, changing_names, fingerprint
from edgekd.train.finetune.freeze import FreezePolicy, PartCount, apply_policy, set_modes
from edgekd.train.finetune.quality import KEEP, Mask, check_retention, compare
from edgekd.train.run_folder import locked, restore_log, set_aside, stop_requests

RESUME_FILE = "resume.pt"
LOG_FILE = "steps.csv"
REPORT_FILE = "report.json"
BEST_FILE = "best.pt"
StepWatch = Callable[[Stage, int, Mapping[str, float]], None]
FREE_SETTINGS = ("keep", "save_every")
"""What may differ when a run is resumed: how often it saves, and the gate, whose limit each stage reports."""


class SegmenterTask(Protocol):
    """What the loop asks of a network and its data."""

    model: nn.Module
    policy: FreezePolicy

    def step_losses(self, stage: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """Losses of one micro-batch drawn with `rng`; `total` carries the gradient."""

    def layers_below_top(self, parameter_name: str) -> int:
        """Depth of a parameter for layer decay: 0 for heads, rising towards the input."""

    def evaluate(self) -> dict[str, Any]:
        """Quality on the validation pictures, JSON values."""

    def predictions(self) -> dict[str, list[Mask]]:
        """Masks on the retention pictures, per kind of prompt, always in the same order."""

    def truths(self) -> list[Mask] | None:
        """The truth of every mask in one list of `predictions`, or None."""

    def save(self, path: Path) -> None:
        """Write the network as a checkpoint that the rest of edgekd reads."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Settings of a run.

    Attributes:
        stages: in order; by default adapter and last blocks, then mask head, then both.
        learning_rate: of the heads, after warm-up; falls by cosine to `final_share` of it.
        layer_decay: factor per layer below the top.
        accumulate: micro-batches per step.
        amp: bf16 autocast; weights and losses stay fp32. None: where the processor or GPU has bf16 arithmetic.
        ema_decay: of the averaged weights that are validated and kept.
        keep: share of the earlier quality that every kind of prompt must keep.
        save_every: steps between two resume files.
    """

    stages: tuple[Stage, ...] = (Stage(1, 300), Stage(2, 300), Stage(3, 300))
    learning_rate: float = 2e-4
    final_share: float = 0.02
    weight_decay: float = 0.02
    layer_decay: float = 0.9
    warmup_steps: int = 50
    accumulate: int = 1
    amp: bool | None = None
    ema_decay: float = 0.999
    clip_norm: float = 1.0
    seed: int = 0
    keep: float = KEEP
    save_every: int = 100


@dataclass
class Progress:
    """Where a run is: index into the stages, steps done in that stage."""

    stage_index: int = 0
    step: int = 0
    reports: list[dict[str, Any]] = field(default_factory=list)


def with_arithmetic(config: FinetuneConfig, device: torch.device) -> FinetuneConfig:
    """Return the settings with `amp` decided: as it was chosen, else whether the device has bf16 arithmetic."""
    if config.amp is not None:
        return config
    on_gpu = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return replace(config, amp=on_gpu or (device.type == "cpu" and has_bf16()))


def learning_rate_at(step: int, n_steps: int, config: FinetuneConfig) -> float:
    """Linear warm-up, then half a cosine from `learning_rate` to `final_share` of it."""
    warm = min(1.0, (step + 1) / max(1, min(config.warmup_steps, n_steps)))
    falling = 0.5 * (1 + math.cos(math.pi * step / max(1, n_steps)))
    return config.learning_rate * warm * (config.final_share + (1 - config.final_share) * falling)


def build_optimizer(task: SegmenterTask, config: FinetuneConfig) -> torch.optim.AdamW:
    """AdamW over what trains now; norms, biases, tokens and embeddings without weight decay, deeper layers slower."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in task.model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim < 2 or any(word in name for word in ("token", "embed", "attention_biases"))
            key = (config.layer_decay ** task.layers_below_top(name), 0.0 if plain else config.weight_decay)
            groups.setdefault(key, []).append(parameter)
    if not groups:
        raise TrainingError("no parameter trains in this stage; choose others as `stages`")
    settings = [
        {"params": parameters, "lr_scale": scale, "weight_decay": decay}
        for (scale, decay), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]
    return torch.optim.AdamW(settings, lr=config.learning_rate, betas=(0.9, 0.98))


def finetune(
    task: SegmenterTask,
    config: FinetuneConfig,
    folder: Path,
    resume: bool = False,
    on_step: StepWatch = lambda stage, step, losses: None,
) -> dict[str, Any]:
    """Run the stages and return the report, which is also in `folder`.

    Every stage is gated before it counts as done: a run that failed its gate fails it again when it is resumed.

    Raises:
        TrainingError: a stage without parameters, a broken loss, a folder that cannot be written or holds another run,
            a resume file of another run.
        GateFailed: a stage forgets too much. The state up to then is kept, here and in what follows.
        Interrupted: Ctrl-C or SIGTERM, noticed between two steps.
    """
    config = with_arithmetic(config, next(task.model.parameters()).device)
    with locked(folder), stop_requests() as is_asked_to_stop:
        run = _Run(task, config, folder)
        before = task.predictions()
        if resume:
            run.restore()
        else:
            _check_empty(folder)
            set_aside(folder / LOG_FILE)  # of a run that was killed before it first saved
            run.progress.reports.append({"stage": 0, "quality": task.evaluate()})
        while run.progress.stage_index < len(config.stages):
            stage = config.stages[run.progress.stage_index]
            counts = run.train_stage(stage, on_step, is_asked_to_stop)
            run.finish_stage(stage, counts, before)
        with run.averaged.applied(task.model):
            task.save(folder / BEST_FILE)
        return run.report()


def _check_empty(folder: Path) -> None:
    found = [name for name in (RESUME_FILE, BEST_FILE) if (folder / name).exists()]
    if found:
        raise TrainingError(
            f"{folder} holds the {' and '.join(found)} of a run; continue it with `resume` or give another `output`"
        )


class _Run:
    """The moving parts of a run; everything it needs to go on is in `state`."""

    def __init__(self, task: SegmenterTask, config: FinetuneConfig, folder: Path) -> None:
        self.task, self.config, self.folder = task, config, folder
        self.progress = Progress()
        self.start = fingerprint(task.model, task.truths())
        self.names = changing_names(task.model, task.policy, config.stages)
        self.averaged = AveragedWeights(task.model, self.names, config.ema_decay)
        self.optimizer_state: dict[str, Any] | None = None
        self.seconds = 0.0

    def train_stage(self, stage: Stage, on_step: StepWatch, is_asked_to_stop: Callable[[], bool]) -> list[PartCount]:
        """Train from where the stage stands to its end, and save there."""
        counts = apply_policy(self.task.model, self.task.policy, stage.number)
        optimizer = build_optimizer(self.task, self.config)
        if self.optimizer_state is not None:
            optimizer.load_state_dict(self.optimizer_state)
        for step in range(self.progress.step, stage.n_steps):
            began = time.perf_counter()
            losses = self._step(stage, step, optimizer)
            self.seconds += time.perf_counter() - began
            self._log(stage, step, losses)
            self.progress.step = step + 1
            is_last = self.progress.step == stage.n_steps
            try:
                on_step(stage, step, losses)
            except BaseException:
                self.save(optimizer)
                raise
            if is_last or is_asked_to_stop() or self.progress.step % self.config.save_every == 0:
                self.save(optimizer)
            if is_asked_to_stop():
                raise Interrupted(
                    f"stopped after step {self.progress.step} of {stage.n_steps} of stage {stage.number}; the weights "
                    f"are in {self.folder / RESUME_FILE}: repeat the command with `resume` to go on"
                )
        return counts

    def _step(self, stage: Stage, step: int, optimizer: torch.optim.AdamW) -> dict[str, float]:
        set_modes(self.task.model, self.task.policy.fixed_norms)
        rng = np.random.default_rng([self.config.seed, stage.number, step])
        torch.manual_seed(int(rng.integers(2**31)))
        rate = learning_rate_at(step, stage.n_steps, self.config)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for _ in range(self.config.accumulate):
            device = next(self.task.model.parameters()).device.type
            with torch.autocast(device, torch.bfloat16, enabled=bool(self.config.amp)):
                losses = self.task.step_losses(stage.number, rng)
            if not bool(torch.isfinite(losses["total"])):
                raise TrainingError(
                    f"the loss became {float(losses['total'].detach()):g} in step {step + 1} of stage {stage.number}; "
                    f"start again with a lower learning rate; the last good state is in {self.folder / RESUME_FILE}"
                )
            (losses["total"] / self.config.accumulate).backward()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / self.config.accumulate
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(trained, self.config.clip_norm)
        optimizer.step()
        self.averaged.update(self.task.model)
        return sums

    def finish_stage(self, stage: Stage, counts: Sequence[PartCount], before: Mapping[str, list[Mask]]) -> None:
        """Validate the averaged weights, report, gate, and only then count the stage as done. Raises GateFailed."""
        with self.averaged.applied(self.task.model):
            quality = self.task.evaluate()
            after, truths = self.task.predictions(), self.task.truths()
        retention = {kind: compare(before[kind], after[kind], truths) for kind in before}
        entry = {
            "stage": stage.number,
            "n_steps": stage.n_steps,
            "n_trainable": sum(c.n_parameters for c in counts if c.trainable),
            "parts": [asdict(c) for c in counts],
            "quality": quality,
            "keep": self.config.keep,
            "retention": {kind: asdict(r) | {"kept": r.kept} for kind, r in retention.items()},
        }
        report = self.report()
        _write_json(self.folder / REPORT_FILE, report | {"stages": [*report["stages"], entry]})
        check_retention(retention, stage.number, self.config.keep, self.folder / RESUME_FILE)
        self.progress.reports.append(entry)
        self.progress.stage_index += 1
        self.progress.step = 0
        self.optimizer_state = None
        self.save(None)

    def report(self) -> dict[str, Any]:
        """Everything there is to say about the run so far, JSON values."""
        return {
            "model": self.task.policy.model,
            "config": asdict(self.config),
            "train_seconds": round(self.seconds, 1),
            "stages": self.progress.reports,
        }

    def save(self, optimizer: torch.optim.AdamW | None) -> None:
        """Write the resume file; raises TrainingError and keeps the old one when there is no space."""
        state = self.task.model.state_dict()
        write_atomically(
            self.folder / RESUME_FILE,
            {
                "format": STATE_FORMAT,
                "run": "finetune",
                "policy": self.task.policy.model,
                "config": self._settings(),
                "start": self.start,
                "progress": json.dumps(asdict(self.progress)),
                "seconds": self.seconds,
                "model": {name: state[name].detach().cpu() for name in self.names},
                "averaged": self.averaged.values,
                "n_updates": self.averaged.n_updates,
                "optimizer": None if optimizer is None else optimizer.state_dict(),
            },
        )

    def restore(self) -> None:
        """Go on from the resume file. Raises TrainingError when it belongs to another run."""
        path = self.folder / RESUME_FILE
        state = read_state(path)
        if state.get("run") != "finetune" or state["policy"] != self.task.policy.model:
            raise TrainingError(
                f"{path} belongs to another kind of run ({state.get('policy', 'detector')}); give the folder of an "
                f"interrupted {self.task.policy.model} run as `output`, or start without `resume`"
            )
        if state["config"] != self._settings():
            raise TrainingError(
                f"{path} was written with other settings; repeat the command of the interrupted run with `resume`, "
                "or start without it"
            )
        if state.get("start") != self.start:
            raise TrainingError(
                f"{path} began with other weights or other retention pictures, so its gate would compare with another "
                "network; give those of the interrupted run"
            )
        self.task.model.load_state_dict(state["model"], strict=False)
        self.averaged.values = state["averaged"]
        self.averaged.n_updates = state["n_updates"]
        self.progress = replace(Progress(), **json.loads(state["progress"]))
        self.optimizer_state = state["optimizer"]
        self.seconds = state["seconds"]
        self._forget_later_steps()

    def _settings(self) -> str:
        fixed = {name: value for name, value in asdict(self.config).items() if name not in FREE_SETTINGS}
        return json.dumps(fixed, sort_keys=True)

    def _forget_later_steps(self) -> None:
        # Steps after the last resume file will be taken again.
        done = sum(stage.n_steps for stage in self.config.stages[: self.progress.stage_index]) + self.progress.step
        path = self.folder / LOG_FILE
        if path.exists():
            restore_log(path, "".join(path.read_text().splitlines(keepends=True)[: 1 + done]))

    def _log(self, stage: Stage, step: int, losses: Mapping[str, float]) -> None:
        path = self.folder / LOG_FILE
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(["stage", "step", *losses])
            writer.writerow([stage.number, step + 1, *(f"{value:.6g}" for value in losses.values())])


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)
