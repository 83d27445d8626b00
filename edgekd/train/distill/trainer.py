"""Ultralytics' detection trainer, made to repeat itself: every epoch is a function of (weights, seed, epoch number).

What differs from the base class:
- pictures, their order and their augmentation are seeded per epoch, so that runs with one seed see the same data
  whatever they train, and a resumed run sees what the whole run would have seen;
- gradients are accumulated within an epoch, never across two;
- `last.pt` and `best.pt` are plain at any moment, `resume.pt` restores all bit for bit (`edgekd.train.checkpoint`);
- a loss that is not finite stops the run, with the batch on disk, instead of being trained away;
- labels and pixels are edgekd's own (`edgekd.train.distill.dataset`), checkpoints are read without running code;
- two or more processes on CPUs (`torchrun`, gloo) average their gradients; several GPUs are left to the base class.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.utils.torch_utils import unwrap_model

from edgekd.data.labels import LabelledSet
from edgekd.errors import InputError, ModelError, TrainingError, first_line
from edgekd.models.architecture import check_architecture, read_architecture, rebuild_detector
from edgekd.models.yolo11n import load_detector
from edgekd.train.checkpoint import (
    STATE_FORMAT,
    plain_checkpoint,
    read_detector_state,
    student_weights,
    write_atomically,
)
from edgekd.train.distill.dataset import LabelledDataset, describe_dataset, trained_scale
from edgekd.train.distill.feature_cache import view_keys
from edgekd.train.distill.oriented import check_head, is_oriented_student
from edgekd.train.distill.recipes import Schedule
from edgekd.train.run_folder import restore_log, set_aside

RANK = int(os.environ.get("RANK", "-1"))


@dataclass(frozen=True)
class RunOptions:
    """What a run needs beyond Ultralytics' own settings.

    Attributes:
        accumulate: batches per optimizer step.
        resume: a `resume.pt`, or None for a new run.
        n_views: epochs after which pictures, order and augmentation come again; None for never.
        with_keys: give every batch the keys of its pictures (`view_keys`) for a cache of the teacher's maps.
        n_threads: CPU threads of one process; None shares the cores among the processes.
    """

    accumulate: int = 1
    resume: Path | None = None
    n_views: int | None = None
    with_keys: bool = False
    n_threads: int | None = None


class ReproducibleTrainer(DetectionTrainer):  # type: ignore[misc]
    """A detection trainer whose runs can be repeated, cut and continued; see the module.

    Args:
        run: options of edgekd.
        cfg: as for the base class.
        overrides: Ultralytics' settings; `nbs` is set so that the base class leaves accumulation to this one.
        _callbacks: as for the base class.
    """

    model: Any
    labels: dict[str, LabelledSet]
    _is_built = False

    def __init__(
        self,
        run: RunOptions,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
    ) -> None:
        settings = dict(overrides or {})
        n_processes = self._join_cpu_processes(settings)
        batch = int(settings.get("batch", 16)) // n_processes
        self.run_options = run
        self.state = None if run.resume is None else read_detector_state(run.resume)
        self._n_steps_in_epoch = 0
        self._batch: dict[str, Any] = {}
        if is_oriented_student(settings.get("model"), self.state):
            settings["task"] = "obb"
        settings |= {"batch": batch, "nbs": batch, "amp": False, "resume": False, "distill_model": None} | {
            name: settings[name] for name in ("distill_model",) if name in settings
        }
        super().__init__(cfg, settings, _callbacks)
        self._is_built = True
        if self.device.type == "cpu":
            # The base class leaves a core to its loaders, of which there are none here: half of a machine of two cores.
            torch.set_num_threads(run.n_threads or max(1, len(os.sched_getaffinity(0)) // n_processes))
        if n_processes > 1:
            self.world_size = 1  # the base class knows no processes without a GPU each; see optimizer_step

    @staticmethod
    def _join_cpu_processes(settings: dict[str, Any]) -> int:
        """Join the gloo group of `torchrun` on CPUs; 1 for one process, and for GPUs (the base class joins them)."""
        n_processes = int(os.environ.get("WORLD_SIZE", "1"))
        if n_processes == 1 or str(settings.get("device", "")) != "cpu":
            return 1
        if not dist.is_initialized():
            dist.init_process_group("gloo")
        return n_processes

    @property
    def _has_cpu_group(self) -> bool:
        return bool(dist.is_initialized() and self.device.type == "cpu")

    @property
    def csv(self) -> Path:
        """The log of epochs. While the base class is built it deletes what it finds here, so it finds another name."""
        return Path(self.save_dir / ("results.csv" if self._is_built else ".results.csv"))

    @csv.setter
    def csv(self, _path: Path) -> None:
        """The base class sets what this class decides."""

    # --- building

    def get_dataset(self) -> dict[str, Any]:
        """Read the labels with edgekd's own reader; Ultralytics sees a description that has nothing to run in it."""
        self.labels, data = describe_dataset(Path(self.args.data), self.save_dir, self.is_oriented)
        self.args.data = data["yaml_file"]
        return data

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> LabelledDataset:
        """The split as Ultralytics trains on it, with the runtime's pixels."""
        stride = max(int(unwrap_model(self.model).stride.max()), 32)
        return LabelledDataset(self.labels[mode], self.args, self.data, mode == "train", batch or 16, stride)

    @property
    def is_oriented(self) -> bool:
        """Whether the student learns turned boxes."""
        return bool(self.args.task == "obb")

    def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
        """The network of the student's task."""
        base = OBBTrainer if self.is_oriented else DetectionTrainer
        return base.get_model(self, cfg, weights, verbose)

    def get_validator(self) -> Any:
        """The validator of the student's task."""
        return (OBBTrainer if self.is_oriented else DetectionTrainer).get_validator(self)

    def setup_model(self) -> None:
        """Build the student: from a resumed run's own description, a checkpoint, an architecture, or as handed in."""
        if isinstance(self.model, nn.Module):
            return
        if self.state is not None:
            self.model = self._rebuilt(self.state)
        elif str(self.model).endswith(".pt"):
            weights: Any = load_detector(self.model, oriented=self.is_oriented)
            description = check_architecture(weights.yaml, str(self.model))
            self.model = self.get_model(cfg=description, weights=weights, verbose=False)
        else:
            self.model = self.get_model(cfg=read_architecture(str(self.model)), verbose=False)
        check_head(self.model, str(self.args.model), self.is_oriented)
        self.model = self.model.to(memory_format=torch.channels_last)

    def _rebuilt(self, state: dict[str, Any]) -> Any:
        """The student of a resume file; it must know the classes of the data."""
        names = [str(self.data["names"][index]) for index in range(self.data["nc"])]
        if names != state["class_names"]:
            raise TrainingError(
                f"{self.run_options.resume} was trained on the classes {', '.join(state['class_names'])[:120]} and the "
                f"data has {', '.join(names)[:120]}; give the data of the interrupted run"
            )
        try:
            weights = student_weights(state["model"])
            return rebuild_detector(state["student_yaml"], names, weights, str(self.run_options.resume))
        except ModelError as error:
            raise TrainingError(str(error)) from error

    def _do_train(self) -> None:
        """Train to the end; of a run that was stopped after its last epoch only the last validation is left."""
        if self.state is None or self.state["epoch"] + 1 < self.epochs:
            super()._do_train()
            return
        if self._has_cpu_group:
            raise TrainingError(
                f"{self.run_options.resume} has finished its {self.epochs} epochs and was resumed in several "
                "processes, which do not validate; resume it in one"
            )
        if self.world_size > 1:
            self._setup_ddp()
        self._setup_train()
        self.final_eval()

    def _setup_train(self) -> None:
        """Build everything, then give every CPU process the weights of the first."""
        super()._setup_train()
        if RANK in (-1, 0) and self.state is None:
            set_aside(self.csv)
        if self._has_cpu_group:
            for tensor in [*self.model.state_dict().values(), *self.ema.ema.state_dict().values()]:
                dist.broadcast(tensor, src=0)

    # --- one epoch, one step

    def _model_train(self) -> None:
        """Start an epoch: training mode, and random numbers that depend on seed, epoch and process alone."""
        super()._model_train()
        self._n_steps_in_epoch = 0
        view = self.epoch % (self.run_options.n_views or self.epochs)
        entropy = np.random.SeedSequence([self.args.seed, view, max(RANK, 0)])
        seed = int(entropy.generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        self.train_loader.reset()
        self.train_loader.generator.manual_seed(seed)
        _forget_recent_pictures(self.train_loader.dataset)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Keep the batch at hand for a report, and lay pictures out as the convolutions want them."""
        if self.run_options.with_keys:
            batch["view_keys"] = view_keys(batch["img"])
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        self._batch = batch
        return batch

    def optimizer_step(self) -> None:
        """Step after `accumulate` batches and at the end of the epoch; stop at a loss that is not finite."""
        if not bool(torch.isfinite(self.loss)):
            self._stop_at_broken_loss()
        self._n_steps_in_epoch += 1
        is_last = self._n_steps_in_epoch == len(self.train_loader)
        if self._n_steps_in_epoch % self.run_options.accumulate and not is_last:
            return
        if self._has_cpu_group:
            for parameter in self.model.parameters():
                if parameter.grad is not None:
                    dist.all_reduce(parameter.grad)
        super().optimizer_step()

    def _stop_at_broken_loss(self) -> None:
        path = self.save_dir / "broken_batch.pt"
        tensors = {name: value.cpu() for name, value in self._batch.items() if isinstance(value, Tensor)}
        losses = {name: float(value) for name, value in self.loss_items.items()}
        files = [str(file) for file in self._batch.get("im_file", ())]
        write_atomically(path, {"batch": tensors, "losses": losses, "files": files, "epoch": self.epoch + 1})
        broken = ", ".join(name for name, value in losses.items() if not np.isfinite(value)) or "the sum"
        raise TrainingError(
            f"the loss became {float(self.loss):g} ({broken}) in epoch {self.epoch + 1}; the batch is in {path}: "
            "lower lr0 or use fp32, then continue with `resume`"
        )

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Never repeat an epoch in silence: a broken loss has already stopped the run."""
        return False

    # --- checkpoints

    def save_model(self) -> bool:
        """Write `last.pt`, `best.pt` when it is the best, and `resume.pt` last."""
        student = getattr(self.ema.ema, "student_model", self.ema.ema)
        student.trained_scale = trained_scale(self.labels["train"], self.args.imgsz)
        content = plain_checkpoint(student, vars(self.args), {**self.metrics, "fitness": self.fitness})
        write_atomically(self.last, content)
        if self.best_fitness == self.fitness:
            write_atomically(self.best, content)
        write_atomically(self.wdir / "resume.pt", self.collect_state())
        return True

    def collect_state(self) -> dict[str, Any]:
        """The state of the run after an epoch, as tensors and plain values."""
        model = unwrap_model(self.model)
        student = getattr(model, "student_model", model)
        return {
            "format": STATE_FORMAT,
            "epoch": self.epoch,
            "model": model.state_dict(),
            "ema": self.ema.ema.state_dict(),
            "ema_updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "best_fitness": float(self.best_fitness),
            "stopper": [float(self.stopper.best_fitness), int(self.stopper.best_epoch)],
            "student_yaml": _plain(student.yaml),
            "class_names": [str(self.data["names"][index]) for index in range(self.data["nc"])],
            "train_args": {k: v for k, v in _plain(vars(self.args)).items() if k != "resume"},
            "results_csv": self.csv.read_text() if self.csv.exists() else "",
        }

    def resume_training(self, ckpt: Any) -> None:
        """Restore the state of `resume.pt`, if the run is a resumed one."""
        if self.state is None:
            return
        state = self.state
        try:
            unwrap_model(self.model).load_state_dict(state["model"])
            self.ema.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = first_line(error)
            raise TrainingError(
                f"{self.run_options.resume} does not fit this run ({reason}); give the same student, teacher and recipe"
            ) from error
        self.ema.updates = state["ema_updates"]
        self.best_fitness = state["best_fitness"]
        self.stopper.best_fitness, self.stopper.best_epoch = state["stopper"]
        self.start_epoch = state["epoch"] + 1
        if RANK in (-1, 0):
            restore_log(self.csv, state["results_csv"])

    def final_eval(self) -> None:
        """Validate `best.pt`, which is plain already; with several CPU processes the last epoch's metrics stand."""
        if not self.best.exists() or self._has_cpu_group:
            return
        self.validator.args.plots = False
        self.metrics = self.validator(model=self.best)
        self.metrics.pop("fitness", None)


def base_settings(data: Path, output: Path, schedule: Schedule, device: str, seed: int) -> dict[str, Any]:
    """Ultralytics' settings of a run, as every trainer here uses them. Raises InputError for a device not there."""
    check_device(device)
    return {
        **schedule.model_dump(exclude={"accumulate"}),
        "cos_lr": True,
        "warmup_bias_lr": 0.0,
        "data": str(data),
        "project": str(output.parent.resolve()),
        "name": output.name,
        "exist_ok": True,
        "device": device,
        "workers": 0 if device == "cpu" else 8,
        "seed": seed,
        "plots": False,
        "patience": schedule.epochs,
    }


def check_device(device: str) -> None:
    """Refuse GPU numbers that this machine does not have. Raises InputError."""
    numbers = device.removeprefix("cuda:").split(",")
    if not all(number.strip().isdigit() for number in numbers):
        return
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if max(int(number) for number in numbers) >= n_gpus:
        raise InputError(
            f"the device is {device!r} and PyTorch sees {n_gpus} GPUs on this machine; give the device cpu, "
            "or install the driver and a PyTorch with CUDA"
        )


def _forget_recent_pictures(dataset: Any) -> None:
    """Empty the pool that mosaics draw from: it would carry pictures from one epoch into the next."""
    if getattr(dataset, "cache", None) != "ram":
        for index in dataset.buffer:
            dataset.ims[index] = dataset.im_hw0[index] = dataset.im_hw[index] = None
    dataset.buffer.clear()


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a `weights_only=True` reader accepts: numbers, texts, and lists and dicts of these."""
    kinds = (str, int, float, bool, list, dict, type(None))
    return {name: value for name, value in values.items() if isinstance(value, kinds)}
