"""Does a teacher help in equal time? Paired seeds: every arm of a seed has the same pictures, order and augmentation.

    python benchmarks/distill_sets.py --data nwpu/data.yaml --side 256 -o small
    python benchmarks/bench_distill.py --data small/choose.yaml --first-seed 100 --seeds 2 ... --runs choose.jsonl
    python benchmarks/bench_distill.py --data small/report.yaml --first-seed 0 --seeds 5 ... --runs report.jsonl

All arms get the seconds that `no_teacher` needs for `--epochs` epochs. First the processor time of one step of every
arm is measured on one real batch, the arms in turn, the fastest of `--rounds`; from these and from the time of the data
follow the epochs of each arm, rounded to the nearest; what share of the time this is stands in the result. The costs
lie beside the runs and are measured once. Each run is one line of the JSON-lines file `--runs`, written when it is
done, so a cut benchmark goes on where it stopped. The result file holds the complete seeds: accuracy after the last
epoch and the paired differences from `no_teacher` and from `mse`, with 95 % Student intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from paired import paired

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")

BASE, PLAIN = "no_teacher", "mse"
MEASURES = {"map": "metrics/mAP50-95(B)", "map50": "metrics/mAP50(B)"}


@dataclass(frozen=True)
class Arm:
    """One way to train: the method, which teacher, what differs in the recipe, and when the teacher is asked.

    `early`: share of the epochs with a teacher; `views`: share of the epochs after which views repeat, and the
    teacher's maps come from the cache.
    """

    method: str
    teacher: str | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    early: float = 1.0
    views: float = 1.0


MSE = {"distance": "mse", "lambda_attention": 0.0, "lambda_logits": 0.0}
EXPLICIT = {"lambda_full": 0.0}
FROM_TEACHER = {"start": "teacher"}
ARMS = {
    "no_teacher": Arm("none"),
    "mse": Arm("feature", "detector", MSE),
    "mse_cached": Arm("feature", "detector", MSE, views=0.2),
    "mse_early": Arm("feature", "detector", MSE, early=0.25),
    "ds2d2_explicit": Arm("ds2d2", "detector", EXPLICIT),
    "ds2d2_explicit_unweighted": Arm("ds2d2", "detector", EXPLICIT | {"is_cell_weighted": False}),
    "ds2d2_explicit_cached": Arm("ds2d2", "detector", EXPLICIT, views=0.2),
    "ds2d2_explicit_early": Arm("ds2d2", "detector", EXPLICIT, early=0.25),
    "ds2d2": Arm("ds2d2", "detector"),
    "ds2d2_implicit": Arm("ds2d2", "detector", {"lambda_explicit": 0.0}),
    "feature_detector": Arm("feature", "detector"),
    "logits": Arm("feature", "detector", {"lambda_feature": 0.0, "lambda_attention": 0.0, "lambda_logits": 1.0}),
    "feature_vit": Arm("feature", "vit", {"lambda_attention": 0.0}),
    "feature_attention_vit": Arm("feature", "vit"),
    "inherit_general": Arm("inherit", "general"),
    "inherit": Arm("inherit", "detector"),
    "inherit_mse": Arm("feature", "detector", MSE | FROM_TEACHER),
    "inherit_mse_early": Arm("feature", "detector", MSE | FROM_TEACHER, early=0.25),
    "inherit_ds2d2_explicit": Arm("ds2d2", "detector", EXPLICIT | FROM_TEACHER),
    "inherit_ds2d2_early": Arm("ds2d2", "detector", FROM_TEACHER, early=0.25),
    "ultralytics_distill_model": Arm("ultralytics", "detector"),
}


@dataclass(frozen=True)
class Run:
    """One training: accuracy after the last epoch, its epochs, and its processor time in seconds."""

    arm: str
    seed: int
    map: float
    map50: float
    epochs: int
    processor_s: float


def main() -> None:
    options = parse_options()
    arms = options.arms.split(",")
    if not options.report_only:
        costs = read_costs(arms, options)
        done = {(run["arm"], run["seed"]) for run in read_runs(options.runs)}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for arm in arms:
                if (arm, seed) not in done:
                    append_run(options.runs, train(arm, seed, epochs_of(arm, costs, options.epochs), options))
    write_report(options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set in Ultralytics' YAML")
    parser.add_argument("--student", required=True, help="architecture (.yaml) or checkpoint (.pt)")
    parser.add_argument("--detector", type=Path, required=True, help="teacher detector of the same classes")
    parser.add_argument("--vit", type=Path, help="teacher ViT")
    parser.add_argument("--vit-side", type=int, help="longer side of the pictures that the ViT sees")
    parser.add_argument(
        "--general", type=Path, help="detector of other classes to begin with, such as a COCO checkpoint"
    )
    parser.add_argument("--arms", default="no_teacher,mse,ds2d2_explicit,ds2d2,inherit", help="of " + ", ".join(ARMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=20, help="of the arm without a teacher")
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.1, help="share of the gradient for the teacher")
    parser.add_argument("--final-share", type=float, help="that share in the teacher's last epoch; by default the same")
    parser.add_argument("--rounds", type=int, default=8, help="of the measurement of costs")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_distill/runs.jsonl"))
    parser.add_argument("--report-only", action="store_true", help="train nothing; report the runs that are there")
    parser.add_argument("--theme", default="distill", help="of the result file; the table is made from distill")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def make_job(arm: str, seed: int, epochs: int, options: argparse.Namespace):  # noqa: ANN201 - imported lazily
    from edgekd.train.distill.job import DistillJob
    from edgekd.train.distill.recipes import Recipe, Schedule

    way = ARMS[arm]
    schedule = Schedule(
        epochs=epochs, imgsz=options.imgsz, batch=options.batch, warmup_epochs=1.0, close_mosaic=max(epochs // 4, 1)
    )
    recipe = Recipe(
        schedule=schedule,
        target_share=options.share,
        final_share=options.final_share,
        vit_side_px=options.vit_side,
        n_views=views_of(arm, epochs) if way.views < 1 else None,
        teacher_epochs=early_of(arm, epochs) if way.early < 1 else None,
        **way.changes,
    )
    is_peer = way.method == "ultralytics"
    teacher = None if way.teacher is None or is_peer else getattr(options, way.teacher)
    return DistillJob(
        data=options.data,
        student=options.student,
        output=options.runs.parent / f"{arm}_{seed}",
        method="none" if is_peer else way.method,
        teacher=teacher,
        recipe=recipe,
        seed=seed,
        device=options.device,
        precision=options.precision,
        feature_cache=options.runs.parent / f"cache_{arm}_{seed}" if way.views < 1 else None,
        n_threads=1,  # the seconds of every arm are those of one thread
    )


def make_trainer(arm: str, job: Any, options: argparse.Namespace) -> Any:
    """The trainer of an arm, which validates once, after the last epoch."""
    from edgekd.train.distill.job import DistillTrainer, training_settings

    once = {"val": False, "save": False}
    if ARMS[arm].method == "ultralytics":
        return make_peer(job, options, once)

    class Trainer(DistillTrainer):
        def final_eval(self) -> None:
            """The metrics of the last epoch stand."""

    return Trainer(job, overrides=once | training_settings(job))


def make_peer(job: Any, options: argparse.Namespace, once: dict[str, bool]) -> Any:
    """Ultralytics' own `distill_model`, with its own weight (dis = 6), under the same seeds and precision."""
    import torch
    from ultralytics.nn.distill_model import DistillationModel

    from edgekd.train.distill.job import training_settings
    from edgekd.train.distill.trainer import ReproducibleTrainer, RunOptions

    class Autocast(DistillationModel):
        def loss(self, batch, preds=None):  # noqa: ANN001, ANN202
            with torch.autocast(self.device_type, torch.bfloat16, enabled=self.training and job.precision == "bf16"):
                return super().loss(batch, preds)

    class Trainer(ReproducibleTrainer):
        def _setup_train(self) -> None:
            super()._setup_train()
            Autocast.device_type = self.device.type
            self.model.__class__ = Autocast

        def final_eval(self) -> None:
            """The metrics of the last epoch stand."""

    return Trainer(RunOptions(), overrides=once | training_settings(job) | {"distill_model": str(options.detector)})


def train(arm: str, seed: int, epochs: int, options: argparse.Namespace) -> Run:
    job = make_job(arm, seed, epochs, options)
    for folder in (job.output, job.feature_cache):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    trainer = make_trainer(arm, job, options)
    start = time.process_time()
    trainer.train()
    seconds = time.process_time() - start
    for folder in (job.output, job.feature_cache):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    values = {name: round(float(trainer.metrics[key]), 5) for name, key in MEASURES.items()}
    return Run(arm, seed, **values, epochs=epochs, processor_s=round(seconds, 1))


# --- what a step costs, and how many epochs follow


def views_of(arm: str, epochs: int) -> int:
    """Epochs after which the views of an arm repeat."""
    return max(round(ARMS[arm].views * epochs), 1)


def early_of(arm: str, epochs: int) -> int:
    """Epochs of an arm with a teacher."""
    return max(round(ARMS[arm].early * epochs), 1)


def seconds_of(arm: str, costs: dict[str, dict[str, float]], epochs: int) -> float:
    """Processor seconds per step of an epoch, summed over the epochs of an arm."""
    base, own = costs[BASE]["step"], costs[arm]
    n_taught, n_computed = early_of(arm, epochs), views_of(arm, epochs)
    taught = [own["step"] if epoch < n_computed else own["cached"] for epoch in range(n_taught)]
    return sum(taught) + (epochs - n_taught) * base


def epochs_of(arm: str, costs: dict[str, dict[str, float]], base_epochs: int) -> int:
    """The epochs of an arm that cost most nearly what `base_epochs` without a teacher cost."""
    budget = seconds_of(BASE, costs, base_epochs)
    return min(range(1, base_epochs + 1), key=lambda epochs: abs(seconds_of(arm, costs, epochs) - budget))


def read_costs(arms: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Costs from the file beside the runs, or measured and written there."""
    path = options.runs.with_suffix(".costs.json")
    if path.exists():
        costs = json.loads(path.read_text())
        if set(arms) <= costs.keys():
            return costs
    costs = measure_costs(list(dict.fromkeys([BASE, *arms])), options)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(costs, indent=1) + "\n")
    return costs


def measure_costs(arms: Sequence[str], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Processor seconds per step of each arm, data included; `cached` with the teacher's maps read from the disk."""
    trainers = {arm: build(arm, options) for arm in arms}
    first = trainers[arms[0]]
    n_steps = len(first.train_loader)
    start = time.process_time()
    batches = [batch for batch, _ in zip(first.train_loader, range(4), strict=False)]
    data_s = (time.process_time() - start) / len(batches)
    every = 16
    share_measured = math.ceil(n_steps / every) / n_steps
    fastest = {arm: [math.inf, math.inf, math.inf] for arm in arms}
    for _ in range(options.rounds):
        for arm, trainer in trainers.items():
            plain = timed_step(trainer, batches[0], is_measured=False, with_cache=False)
            measured = timed_step(trainer, batches[0], is_measured=True, with_cache=False)
            cached = timed_step(trainer, batches[0], is_measured=False, with_cache=True)
            fastest[arm] = [min(a, b) for a, b in zip(fastest[arm], (plain, measured, cached), strict=True)]
    costs = {}
    untaught = [arm for arm in arms if ARMS[arm].method in ("none", "inherit")]  # one and the same step
    together = [min(values) for values in zip(*(fastest[arm] for arm in untaught), strict=True)]
    for arm, (plain, measured, cached) in (fastest | dict.fromkeys(untaught, [min(together)] * 3)).items():
        share_s = max(measured - plain, 0.0) * share_measured
        costs[arm] = {"step": data_s + plain + share_s, "cached": data_s + min(cached, plain) + share_s}
        shutil.rmtree(options.runs.parent / f"cache_{arm}_0", ignore_errors=True)
    return costs


def build(arm: str, options: argparse.Namespace) -> Any:
    job = make_job(arm, 0, options.epochs, options)
    trainer = make_trainer(arm, job, options)
    trainer._setup_train()
    trainer.model.train()
    return trainer


def timed_step(trainer: Any, batch: dict[str, Any], is_measured: bool, with_cache: bool) -> float:
    """One training step; its processor time in seconds. `is_measured`: with the gradient norms of the terms."""
    objective = getattr(trainer.model, "objective", None)
    cache = getattr(objective, "cache", None)
    if objective is not None:
        trainer.model.balance._n_batches = 0 if is_measured else 1
        objective.cache = cache if with_cache else None
    start = time.process_time()
    loss, _ = trainer.model(trainer.preprocess_batch(dict(batch)))
    loss.sum().backward()
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    trainer.ema.update(trainer.model)
    seconds = time.process_time() - start
    if objective is not None:
        objective.cache = cache
    return seconds


# --- files


def read_runs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append_run(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def compare_arms(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Per arm: the seeds that have a run without a teacher, values, and paired differences from BASE and PLAIN."""
    of = {(run["arm"], run["seed"]): run for run in runs}
    arms: dict[str, dict[str, Any]] = {}
    for arm in dict.fromkeys(run["arm"] for run in runs):
        seeds = sorted(seed for name, seed in of if name == arm and (BASE, seed) in of)
        entry: dict[str, Any] = {"seeds": seeds}
        for name in ("epochs", "processor_s", *MEASURES):
            entry[name] = [of[arm, seed][name] for seed in seeds]
        for reference in (BASE, PLAIN):
            common = [seed for seed in seeds if (reference, seed) in of]
            if arm == reference or len(common) < 2:
                continue
            for name in MEASURES:
                pair = [of[arm, seed][name] for seed in common], [of[reference, seed][name] for seed in common]
                entry[f"{name}_minus_{reference}"] = paired(*pair) | {"seeds": common}
        arms[arm] = entry
    return arms


def write_report(options: argparse.Namespace) -> None:
    from distill_plot import plot_arms
    from result_file import write_result

    from edgekd.files import sha256_of

    costs = options.runs.with_suffix(".costs.json")
    names = ("epochs", "imgsz", "batch", "share", "final_share", "precision", "device", "vit_side")
    teachers = [path for path in (options.detector, options.vit, options.general) if path is not None]
    content = {
        "settings": {name: getattr(options, name) for name in names},
        "data": f"{options.data.parent.name}/{options.data.name}",
        "student": Path(options.student).name,
        "teachers_sha256": {path.name: sha256_of(path) for path in teachers},
        "step_s": json.loads(costs.read_text()) if costs.exists() else {},
        "arms": compare_arms(read_runs(options.runs)),
    }
    for arm, entry in content["arms"].items():
        base = seconds_of(BASE, content["step_s"], options.epochs)
        entry["share_of_time"] = [round(seconds_of(arm, content["step_s"], n) / base, 3) for n in entry["epochs"]]
    path = write_result(options.theme, content, options.output)
    plot_arms(content["arms"], path.with_suffix(".png"))
    print(json.dumps(content["arms"], indent=1))


if __name__ == "__main__":
    main()
