"""Does a teacher help? Paired seeds: every arm of a seed sees the same weights, pictures, order and augmentation.

    python benchmarks/bench_distill.py --data D.yaml --student yolo11n.pt --detector teacher.pt --vit vit.safetensors

Each run is one line of the JSON-lines file `--runs`, written when it is done, so a cut benchmark goes on where it
stopped. The result file holds the complete seeds: the last epoch's accuracy (no choice of a best epoch),
the paired difference from "no teacher" with its 95 % Student interval, and the wall time beside it. With
`--equal-seconds` every arm is also compared with the arm without a teacher that trains as many seconds: its epochs are
those of the arm, times the arm's seconds over the seconds of the arm without a teacher of the same seed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paired import paired

os.environ.setdefault("YOLO_AUTOINSTALL", "false")
os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")

PEER = "ultralytics_distill_model"
BASE, AS_LONG_AS = "no_teacher", "_as_long_as_"
MEASURES = {"map": "metrics/mAP50-95(B)", "map50": "metrics/mAP50(B)"}
ARMS = {
    "no_teacher": ("none", {}),
    "feature_vit": ("feature", {"lambda_attention": 0.0}),
    "ds2d2_explicit": ("ds2d2", {"lambda_full": 0.0}),
    "ultralytics_distill_model": ("ultralytics", {}),
    "ds2d2": ("ds2d2", {}),
    "ds2d2_implicit": ("ds2d2", {"lambda_explicit": 0.0}),
    "mse": ("ds2d2", {"lambda_full": 0.0, "is_cell_weighted": False, "weight_high": 3.0}),
    "feature_detector": ("feature", {}),
    "logits": ("feature", {"lambda_feature": 0.0, "lambda_attention": 0.0, "lambda_logits": 1.0}),
}


@dataclass(frozen=True)
class Run:
    """One training: accuracy after the last epoch and after each, and its wall time in seconds."""

    arm: str
    seed: int
    map: float
    map50: float
    map50_by_epoch: list[float]
    map_by_epoch: list[float]
    train_s: float
    epochs: int = 0


def main() -> None:
    options = parse_options()
    if not options.report_only:
        done = {(run["arm"], run["seed"]) for run in read_runs(options.runs)}
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for arm in options.arms.split(","):
                if (arm, seed) not in done:
                    append_run(options.runs, train(arm, seed, options))
            if options.equal_seconds:
                run_equal_seconds(seed, options)
    write_report(options)


def run_equal_seconds(seed: int, options: argparse.Namespace) -> None:
    """Train without a teacher for as long as every other arm of this seed took."""
    of = {run["arm"]: run for run in read_runs(options.runs) if run["seed"] == seed}
    for arm in options.arms.split(","):
        name = BASE + AS_LONG_AS + arm
        if arm != BASE and arm in of and BASE in of and name not in of:
            epochs = round(options.epochs * of[arm]["train_s"] / of[BASE]["train_s"])
            longer = argparse.Namespace(**{**vars(options), "epochs": max(epochs, options.epochs)})
            append_run(options.runs, replace(train(BASE, seed, longer), arm=name))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set in Ultralytics' YAML")
    parser.add_argument("--student", required=True, help="checkpoint (.pt), or .yaml for random weights")
    parser.add_argument("--detector", type=Path, required=True, help="teacher detector of the same classes")
    parser.add_argument("--vit", type=Path, required=True, help="teacher ViT")
    parser.add_argument("--vit-side", type=int, help="longer side of the pictures that the ViT sees")
    parser.add_argument("--arms", default=",".join(ARMS), help="of " + ", ".join(ARMS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--share", type=float, default=0.1, help="share of the gradient for the teacher")
    parser.add_argument("--final-share", type=float, help="that share in the last epoch; by default the same")
    parser.add_argument("--equal-seconds", action="store_true", help="also train without a teacher as long as each arm")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="bf16", choices=("fp32", "bf16"))
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_distill/runs.jsonl"))
    parser.add_argument("--report-only", action="store_true", help="train nothing; report the runs that are there")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def make_job(arm: str, seed: int, options: argparse.Namespace, folder: Path):  # noqa: ANN201 - imported lazily
    from edgekd.train.distill.job import DistillJob
    from edgekd.train.distill.recipes import Recipe, Schedule

    method, changes = ARMS[arm]
    schedule = Schedule(
        epochs=options.epochs,
        imgsz=options.imgsz,
        batch=options.batch,
        warmup_epochs=1.0,
        close_mosaic=max(options.epochs // 4, 1),
    )
    recipe = Recipe(
        schedule=schedule,
        target_share=options.share,
        final_share=options.final_share,
        vit_side_px=options.vit_side,
        **changes,
    )
    teacher = {"none": None, "ultralytics": None}.get(method, options.vit if arm == "feature_vit" else options.detector)
    return DistillJob(
        data=options.data,
        student=options.student,
        output=folder,
        method="none" if method == "ultralytics" else method,
        teacher=teacher,
        recipe=recipe,
        seed=seed,
        device=options.device,
        precision=options.precision,
    )


def train(arm: str, seed: int, options: argparse.Namespace) -> Run:
    from edgekd.train.distill.job import distill

    folder = options.runs.parent / f"{arm}_{seed}"
    shutil.rmtree(folder, ignore_errors=True)
    job = make_job(arm, seed, options, folder)
    start = time.perf_counter()
    if ARMS[arm][0] == "ultralytics":
        train_with_ultralytics(job, options)
    else:
        distill(job)
    train_s = time.perf_counter() - start
    rows = [line.split(",") for line in (folder / "results.csv").read_text().splitlines()]
    columns = {name: [float(row[rows[0].index(key)]) for row in rows[1:]] for name, key in MEASURES.items()}
    last = columns["map"][-1], columns["map50"][-1]
    return Run(arm, seed, *last, columns["map50"], columns["map"], round(train_s, 1), options.epochs)


def train_with_ultralytics(job, options: argparse.Namespace) -> None:  # noqa: ANN001
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

    Trainer(RunOptions(), overrides={**training_settings(job), "distill_model": str(options.detector)}).train()


def read_runs(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def append_run(path: Path, run: Run) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(run)) + "\n")


def write_report(options: argparse.Namespace) -> None:
    from edgekd.environment import describe_machine, device_slug
    from edgekd.files import sha256_of

    machine = describe_machine()
    runs = read_runs(options.runs)
    of = {(run["arm"], run["seed"]): run for run in runs}
    arms = {}
    for arm in dict.fromkeys(run["arm"] for run in runs):
        seeds = sorted(seed for a, seed in of if a == arm and (BASE, seed) in of)
        entry = {"seeds": seeds, "train_s": [of[arm, s]["train_s"] for s in seeds]}
        for name in MEASURES:
            values = [of[arm, s][name] for s in seeds]
            entry[name] = [round(v, 5) for v in values]
            if arm != BASE and len(seeds) > 1:
                entry[f"{name}_minus_no_teacher"] = paired(values, [of[BASE, s][name] for s in seeds])
            longer = BASE + AS_LONG_AS + arm
            fair = [s for s in seeds if (longer, s) in of]
            if len(fair) > 1:
                pair = [of[arm, s][name] for s in fair], [of[longer, s][name] for s in fair]
                entry[f"{name}_minus_equal_seconds"] = {**paired(*pair), "seeds": fair}
            common = [s for s in seeds if (PEER, s) in of]
            if arm != PEER and len(common) > 1:
                pair = [of[arm, s][name] for s in common], [of[PEER, s][name] for s in common]
                entry[f"{name}_minus_ultralytics"] = {**paired(*pair), "seeds": common}
        arms[arm] = entry
    settings = {
        k: getattr(options, k)
        for k in ("epochs", "imgsz", "batch", "share", "final_share", "precision", "device", "vit_side")
    }
    teachers = {p.name: sha256_of(p) for p in (options.detector, options.vit)}
    result = {
        "theme": "distill",
        "machine": machine.model_dump(mode="json"),
        "settings": settings,
        "data": options.data.parent.name,
        "student": Path(options.student).name,
        "teachers_sha256": teachers,
        "arms": arms,
    }
    path = options.output / f"distill_{device_slug(machine)}_{time.strftime('%Y%m')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(arms, indent=1))


if __name__ == "__main__":
    main()
