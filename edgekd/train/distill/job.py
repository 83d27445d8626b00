"""Distillation runs: a job goes in; plain weights, a resume file, curves and a manifest of the run come out.

runs/a/weights/best.pt, last.pt   plain Ultralytics checkpoints
runs/a/weights/resume.pt          everything a resumed run needs
runs/a/results.csv                losses and validation metrics, one row per epoch
runs/a/distillation.csv, .png     value, weight, gradient norm and share of every loss term
runs/a/run.json                   the job: recipe, teacher with sha256, licences
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ultralytics.cfg import DEFAULT_CFG
from ultralytics.utils import LOGGER

from edgekd.choices import DistillMethod, TrainingPrecision
from edgekd.data.check import check_dataset
from edgekd.errors import InputError, TrainingError
from edgekd.files import sha256_of
from edgekd.models.levels import find_levels
from edgekd.models.teachers import Teacher, detector_teacher, vit_teacher
from edgekd.train.distill.balance import GradientBalance, TermRow, overshoot, rows_to_csv
from edgekd.train.distill.feature_cache import FeatureCache, Use
from edgekd.train.distill.inherit import inherit_weights
from edgekd.train.distill.objective import Objective
from edgekd.train.distill.preflight import check_before_training
from edgekd.train.distill.recipes import Recipe
from edgekd.train.distill.student import DistilledDetector
from edgekd.train.distill.trainer import ReproducibleTrainer, RunOptions, base_settings, check_device
from edgekd.train.run_folder import locked, restore_log, set_aside


@dataclass(frozen=True, kw_only=True)
class DistillJob:
    """One run.

    Attributes:
        data: a data set in Ultralytics' YAML.
        student: a detection or OBB checkpoint (.pt) to start from, or an architecture (.yaml) to start from random
            weights. An OBB student learns turned boxes: labels are YOLO-obb, or polygons, never upright boxes.
        output: folder of the run.
        method: `none` trains on labels alone: the arm every teacher is compared with. `inherit` begins with a
            part of the teacher's weights and then trains on labels alone.
        teacher: a detector (.pt) or a ViT (.safetensors, .pth); None with the method `none`.
        amplifier: from `train_amplifier`, or None.
        recipe: all numbers.
        seed: of data order, augmentation and random weights.
        device: `cpu`, or GPU numbers such as `0`.
        precision: of the forward pass in training; `bf16` is faster where the processor has it.
        resume: continue the run in `output`.
        feature_cache: folder that keeps the teacher's maps, or None; see `edgekd.train.distill.feature_cache`.
        n_threads: CPU threads; None for all cores. Two runs are equal bit for bit if they have the same number.
    """

    data: Path
    student: str
    output: Path
    method: DistillMethod = "none"
    teacher: Path | None = None
    amplifier: Path | None = None
    recipe: Recipe = Recipe()
    seed: int = 0
    device: str = "cpu"
    precision: TrainingPrecision = "fp32"
    resume: bool = False
    feature_cache: Path | None = None
    n_threads: int | None = None

    @property
    def resume_file(self) -> Path:
        """Where the state of this run lies."""
        return self.output / "weights" / "resume.pt"


class DistillTrainer(ReproducibleTrainer):
    """The trainer of one job; `partial(DistillTrainer, job)` is what `YOLO(...).train(trainer=...)` takes."""

    def __init__(
        self,
        job: DistillJob,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
    ) -> None:
        self.job = job
        run = RunOptions(
            accumulate=job.recipe.schedule.accumulate,
            resume=job.resume_file if job.resume else None,
            n_views=job.recipe.n_views,
            with_keys=job.feature_cache is not None,
            n_threads=job.n_threads,
        )
        super().__init__(run, cfg, {**(overrides or {}), **training_settings(job)}, _callbacks)
        self.add_callback("on_train_epoch_end", _log_epoch)

    def set_model_attributes(self) -> None:
        """Wrap the student, after it knows its classes and before optimizer, processes and moving average exist."""
        super().set_model_attributes()
        names = tuple(str(self.data["names"][index]) for index in range(self.data["nc"]))
        recipe = self.job.recipe
        levels = find_levels(self.model, recipe.levels)
        teacher = _load_teacher(self.job, self.device)
        if teacher is not None and self.state is None and (recipe.start == "teacher" or self.job.method == "inherit"):
            n_taken = inherit_weights(self.model, _detector_of(teacher))
            LOGGER.info(f"{n_taken} tensors of the student are evenly spaced channels of {teacher.name}")
        objective = Objective(self.job.method, recipe, teacher, names)
        objective.cache = _feature_cache(self.job)
        n_epochs = recipe.teacher_epochs or recipe.schedule.epochs
        balance = GradientBalance(objective.lambdas, recipe.target_share, recipe.final_share, n_epochs)
        dtype = torch.bfloat16 if self.job.precision == "bf16" else None
        self.model = DistilledDetector(self.model, levels, objective, balance, dtype).to(self.device)
        self.terms_csv = self.save_dir / "distillation.csv"

    def _model_train(self) -> None:
        """Start an epoch, with the teacher or after its last one."""
        super()._model_train()
        teacher_epochs = self.job.recipe.teacher_epochs
        if self.wrapper.objective is not None:
            self.wrapper.objective.is_active = teacher_epochs is None or self.epoch < teacher_epochs

    def _setup_train(self) -> None:
        """Build everything, then look before leaping."""
        if self.state is not None:
            _check_same_run(self.job, self.state)
        super()._setup_train()
        is_first = int(os.environ.get("RANK", "0")) == 0
        if self.state is not None:
            self.wrapper.balance.load_state(self.state["balance"])
            if is_first:
                restore_log(self.terms_csv, self.state["terms_csv"])
            return
        if is_first:
            set_aside(self.terms_csv)
        batch = self.preprocess_batch(next(iter(self.train_loader)))
        self.wrapper.train()
        for line in check_before_training(self.wrapper, batch, self.optimizer, self.ema.ema):
            LOGGER.info(f"pre-flight: {line}")

    @property
    def wrapper(self) -> DistilledDetector:
        """The wrapped student, without what processes put around it."""
        wrapper: DistilledDetector = getattr(self.model, "module", self.model)
        return wrapper

    def collect_state(self) -> dict[str, Any]:
        """The base class's state, the weights of the terms and their log."""
        terms = self.terms_csv.read_text() if self.terms_csv.exists() else ""
        return super().collect_state() | {
            "balance": self.wrapper.balance.state(),
            "terms_csv": terms,
            "job": json.dumps(describe_job(self.job)),
        }


def _log_epoch(trainer: DistillTrainer) -> None:
    """Append the epoch's shares to the log and say what is out of proportion."""
    balance = trainer.wrapper.balance
    rows: list[TermRow] = balance.close_epoch(trainer.epoch + 1)
    if not rows or int(os.environ.get("RANK", "0")) > 0:
        return
    with trainer.terms_csv.open("a") as file:
        file.write(rows_to_csv(rows, header=file.tell() == 0))
    objective = trainer.wrapper.objective
    if objective is not None and objective.cache is not None:
        use = objective.cache.use
        LOGGER.info(f"feature cache: {use.n_read} maps read, {use.n_computed} computed, {use.n_not_kept} not kept")
        objective.cache.use = Use()
    if (sentence := overshoot(rows, balance.share_of(trainer.epoch + 1))) is not None:
        LOGGER.warning(f"epoch {trainer.epoch + 1}: {sentence}")
    for row in rows:
        if (warning := row.warning()) is not None:
            LOGGER.warning(f"epoch {row.epoch}: {warning}")


def distill(job: DistillJob) -> dict[str, float]:
    """Run a job to its end.

    Returns:
        The validation metrics of `best.pt`, by Ultralytics' names.

    Raises:
        InputError, DataError, ModelError, TrainingError: see the message.
    """
    _check_job(job)
    check_device(job.device)
    check_dataset(job.data)
    with locked(job.output):
        _check_folder(job)
        if not job.resume:
            (job.output / "run.json").write_text(json.dumps(describe_job(job), indent=1) + "\n")
        trainer = DistillTrainer(job)
        trainer.train()
        if int(os.environ.get("RANK", "0")) > 0:
            return {}
        from edgekd.train.distill.curves import plot_run

        plot_run(job.output)
    return {name: float(value) for name, value in trainer.metrics.items() if name.startswith("metrics/")}


def _check_job(job: DistillJob) -> None:
    if job.method != "none" and job.teacher is None:
        raise InputError(f"method is {job.method} and there is no teacher to learn from; give a `teacher`")
    if job.method == "none" and (job.teacher or job.amplifier):
        raise InputError(
            "the method none learns from labels alone and a teacher was given; leave it out, or name a method"
        )
    if job.amplifier is not None and (job.method != "ds2d2" or job.recipe.lambda_high == 0.0):
        raise InputError("an amplifier was given and only ds2d2 with a lambda_high above 0 uses it; leave it out")
    for path in (job.teacher, job.amplifier):
        if path is not None and not path.is_file():
            raise InputError(f"{path} does not exist; give a detector (.pt) or a ViT (.safetensors, .pth)")
    inherits = job.method == "inherit" or (job.recipe.start == "teacher" and job.method != "none")
    if inherits and job.student.endswith(".pt"):
        raise InputError(
            f"the student is the checkpoint {job.student} and was to begin with the teacher's weights; give an "
            "architecture (.yaml), or another method with start own in the recipe"
        )
    if job.resume and not job.resume_file.is_file():
        raise TrainingError(f"{job.resume_file} does not exist; start the run without `resume`")


def _check_folder(job: DistillJob) -> None:
    if not job.resume and job.resume_file.exists():
        raise TrainingError(f"{job.output} holds a run already; continue it with `resume` or give another `output`")


def _check_same_run(job: DistillJob, state: dict[str, Any]) -> None:
    """Refuse to continue a run with another method, teacher, recipe, seed or precision; the student is the state's."""
    if "job" not in state:  # written before settings were kept
        return
    before, now = json.loads(state["job"]), json.loads(json.dumps(describe_job(job)))
    settings = ("data", "method", "teacher", "amplifier", "seed", "precision", "recipe")
    changed = [name for name in settings if before.get(name) != now.get(name)]
    if changed:
        raise TrainingError(
            f"{job.resume_file} was written with another {', '.join(changed)}; repeat the command of the interrupted "
            "run with `resume`, or start another run in another output folder"
        )


def training_settings(job: DistillJob) -> dict[str, Any]:
    """Ultralytics' settings of a job."""
    return base_settings(job.data, job.output, job.recipe.schedule, job.device, job.seed) | {"model": job.student}


def trainer_of(job: DistillJob) -> Any:
    """The trainer as `YOLO(...).train(trainer=trainer_of(job))` takes it."""
    return partial(DistillTrainer, job)


def describe_job(job: DistillJob) -> dict[str, Any]:
    """The job for people and for the record: file names and hashes, no folders."""
    return {
        "data": job.data.name,
        "student": Path(job.student).name,
        "method": job.method,
        "teacher": None if job.teacher is None else {"file": job.teacher.name, "sha256": sha256_of(job.teacher)},
        "amplifier": None
        if job.amplifier is None
        else {"file": job.amplifier.name, "sha256": sha256_of(job.amplifier)},
        "seed": job.seed,
        "precision": job.precision,
        "recipe": job.recipe.model_dump(),
        "licences": "student weights AGPL-3.0 (Ultralytics); the teacher's own licence applies to what is learned",
    }


def _file_facts(path: Path | None) -> dict[str, str] | None:
    return None if path is None else {"file": path.name, "sha256": sha256_of(path)}


def _feature_cache(job: DistillJob) -> FeatureCache | None:
    """The cache of a job's teacher; its facts are all that changes the maps of given pixels."""
    if job.feature_cache is None or job.teacher is None:
        return None
    recipe = job.recipe
    facts = {
        "teacher_sha256": sha256_of(job.teacher),
        "levels": recipe.levels,
        "vit_block": recipe.vit_block,
        "vit_side_px": recipe.vit_side_px,
        "precision": job.precision,
    }
    return FeatureCache(job.feature_cache, facts)


def _detector_of(teacher: Teacher) -> Any:
    """The network of a detector; only such a teacher has weights that a student can begin with."""
    if not teacher.strides_px:
        raise InputError(
            f"the teacher {teacher.name} is a ViT or has other levels than P3, P4 and P5, and the student was to begin "
            "with its weights; set start to own in the recipe, or give a detector"
        )
    return teacher.network


def _load_teacher(job: DistillJob, device: torch.device) -> Teacher | None:
    """A teacher by its file: `.pt` is an Ultralytics detector, anything else a ViT."""
    if job.method == "none" or job.teacher is None:
        return None
    if job.teacher.suffix == ".pt":
        return detector_teacher(job.teacher, job.recipe.levels, job.amplifier).to(device)
    return vit_teacher(job.teacher, len(job.recipe.levels), job.recipe.vit_block, job.recipe.vit_side_px).to(device)
