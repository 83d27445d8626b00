"""`distill` and `finetune` stopped at random steps and resumed: is every tensor of the end equal bit for bit?

    python tests/attack/interrupts.py --steps 10 [--seed 0] [--run distill] [--json FILE] [--minutes 20]

Each run starts from weights of 80 classes (distill) or from a trained segmenter (finetune), on drawn pictures, once
undisturbed and once for each random step: the process is killed there, or told to end (SIGTERM), in turns, and a new
process resumes it. Compared are all weights, averages and states of the optimizer, and the logs. Exit 1 when one
differs, 3 when the time was over: the same call with the same file goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

import forked
from report import write_report
from segmentation_scenes import write_scenes
from tiny_data import write_tiny_dataset
from verbs import write_random_student

# Pictures per epoch and epochs of distill, with one picture per step; steps of finetune.
N_PICTURES, N_EPOCHS, N_STEPS = 4, 3, 12
Stopper = Callable[[], None]


def lay(room: Path) -> None:
    """Write pictures, labels and the weights to start from."""
    write_tiny_dataset(room / "squares", n_pictures=N_PICTURES)
    (room / "scenes").mkdir()
    write_scenes(room / "scenes")
    write_random_student(room / "student.pt")
    finetune(room, room / "start", False, 99, signal.SIGTERM)
    (room / "laid").touch()


def distill(room: Path, output: Path, resume: bool, stop_at: int, how: signal.Signals) -> None:
    """A run of other classes than its start, with a teacher; it stops itself after so many steps."""
    from edgekd.train.distill.job import DistillJob, DistillTrainer
    from edgekd.train.distill.recipes import Recipe, Schedule

    schedule = Schedule(epochs=N_EPOCHS, imgsz=64, batch=1, warmup_epochs=1.0, close_mosaic=1)
    recipe = Recipe(schedule=schedule, lambda_full=0.0, lambda_high=0.0)
    student = room / "student.pt"
    job = DistillJob(
        data=room / "squares/data.yaml", student=str(student), output=output, method="ds2d2", teacher=student,
        recipe=recipe, resume=resume, n_threads=1,
    )  # fmt: skip
    stopper, trainer = _stopper(stop_at, how), DistillTrainer(job)
    trainer.add_callback("on_train_batch_end", lambda _trainer: stopper())
    trainer.train()


def finetune(room: Path, output: Path, resume: bool, stop_at: int, how: signal.Signals) -> None:
    """A run of the crop segmenter, from a trained one where there is one; it stops itself after so many steps."""
    from edgekd.errors import Interrupted
    from edgekd.train.finetune.crop import crop_config
    from edgekd.train.finetune.job import FinetuneJob, run_job

    start = room / "start/best.pt"
    config = replace(crop_config(N_STEPS if start.exists() else 2, 0), keep=0.0, save_every=3)
    job = FinetuneJob(
        model="crop", data=room / "scenes/annotations.json", output=output, config=config, batch=2, imgsz=64, size="S",
        weights=start if start.exists() else None, resume=resume,
    )  # fmt: skip
    stopper = _stopper(stop_at, how)
    try:
        run_job(job, lambda *_step: stopper(), lambda _line: None)
    except Interrupted:
        sys.exit(130)


def _stopper(stop_at: int, how: signal.Signals) -> Stopper:
    left = [stop_at]

    def stop() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), how)

    return stop


# Name -> the run, its steps, its log, its state.
RUNS = {
    "distill": (distill, N_PICTURES * N_EPOCHS, "results.csv", "weights/resume.pt"),
    "finetune": (finetune, N_STEPS, "steps.csv", "resume.pt"),
}


def try_step(name: str, room: Path, work: Path, step: int, how: signal.Signals) -> str:
    """Stop a run after a step, resume it, compare; return what is wrong, or an empty string."""
    run, _, log, state = RUNS[name]
    cut = forked.call(lambda: run(room, work / "cut", False, step, how))
    if cut == 0:
        return "was not stopped"
    resume = (work / "cut" / state).exists()
    if code := forked.call(lambda: run(room, work / "cut", resume, 0, how)):
        return f"the resumed run ended with {code}"
    whole = room / f"whole-{name}"
    if _rows(whole / log) != _rows(work / "cut" / log):
        return f"{log} differs"
    return _difference(whole / state, work / "cut" / state)


def _rows(log: Path) -> list[list[str]]:
    """The rows of a log without the column of the wall clock."""
    rows = [line.split(",") for line in log.read_text().splitlines()]
    keep = [index for index, name in enumerate(rows[0]) if "time" not in name and "seconds" not in name]
    return [[row[index] for index in keep] for row in rows]


def _difference(one: Path, two: Path) -> str:
    """Name the first tensor of two state files that differs; an empty string when none does."""
    import torch

    first, second = (dict(_tensors(torch.load(path, weights_only=True), "")) for path in (one, two))
    if first.keys() != second.keys():
        return f"other tensors: {sorted(first.keys() ^ second.keys())[:3]}"
    if not first:
        return "no tensor to compare"
    return next((f"{key} differs" for key, value in first.items() if not torch.equal(value, second[key])), "")


def _tensors(value: Any, place: str) -> list[tuple[str, Any]]:
    import torch

    if isinstance(value, torch.Tensor):
        return [(place, value.nan_to_num() if value.is_floating_point() else value)]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    return [found for key, part in items for found in _tensors(part, f"{place}/{key}")]


def main() -> None:
    """Stop, resume, compare; print what goes wrong, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10, help="random steps per run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--run", choices=tuple(RUNS), help="this one alone")
    parser.add_argument("--json", type=Path, help="result file; one that is there is continued")
    parser.add_argument("--room", type=Path, help="folder for what all runs read, which later calls use again")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after this time")
    options = parser.parse_args()
    forked.import_all(trains=True)
    with tempfile.TemporaryDirectory() as name:
        room = (options.room or Path(name)).absolute()
        room.mkdir(parents=True, exist_ok=True)
        sys.exit(_try_all(options, room))


def _try_all(options: argparse.Namespace, room: Path) -> int:
    end = time.perf_counter() + 60.0 * options.minutes
    settings = {"steps": options.steps, "seed": options.seed, "n_steps": {name: each[1] for name, each in RUNS.items()}}
    known = json.loads(options.json.read_text()) if options.json and options.json.exists() else None
    if known and known["settings"] != settings:
        raise SystemExit(f"{options.json} is of a call with other settings: {known['settings']}")
    counts, findings, took_s = (known["counts"], known["findings"], known["took_s"]) if known else ({}, [], 0.0)
    if not (room / "laid").exists() and forked.call(lambda: lay(room)):
        raise SystemExit("the inputs could not be made")
    for name in (options.run,) if options.run else RUNS:
        run, n_steps, *_ = RUNS[name]
        if not (room / f"whole-{name}/done").exists():
            if forked.call(lambda run=run, name=name: run(room, room / f"whole-{name}", False, 0, signal.SIGTERM)):
                raise SystemExit(f"the undisturbed {name} failed")
            (room / f"whole-{name}/done").touch()
        steps = sorted(Random(f"{options.seed} {name}").sample(range(1, n_steps), options.steps))
        for index, step in enumerate(steps):
            how, start = (signal.SIGKILL, signal.SIGTERM)[index % 2], time.perf_counter()
            line = f"{name}, {how.name} after step {step} of {n_steps}"
            if line in counts:
                continue
            if start > end:
                print(f"{len(counts)} stops, {len(findings)} findings; the time is over")
                return 3
            with tempfile.TemporaryDirectory(dir=room) as work:
                wrong = try_step(name, room, Path(work), step, how)
            counts[line] = wrong or "equal"
            findings += [f"{line}: {wrong}"] * bool(wrong)
            took_s += time.perf_counter() - start
            print(f"{line}: {counts[line]}", flush=True)
            if options.json:
                write_report(options.json, settings, counts, findings, took_s)
    return int(bool(findings))


if __name__ == "__main__":
    main()
