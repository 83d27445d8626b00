"""The crop segmenter trained from nothing, once per seed: what its masks are worth, and what the training cost.

    python benchmarks/bench_crop.py --data annotations.json --split nwpu_seed0.json --runs RUNS [--seeds 0 1 2]

Each seed trains into RUNS/M_SEED, unless its result is there already. Validation takes ground-truth boxes. Processor
time is what a run cost whatever else the machine did; wall time says how busy it was.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_file import write_result

from edgekd.train.finetune.crop import CROP_STEPS, crop_config
from edgekd.train.finetune.job import FinetuneJob, run_job

KEYS = ("miou", "small", "medium", "large", "airplane")
RESULT = "result.json"


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    runs = {}
    for seed in arguments.seeds:
        folder = arguments.runs / f"{arguments.size}_{seed}"
        result = folder / RESULT
        runs[str(seed)] = summarise(json.loads(result.read_text()) if result.is_file() else train(arguments, seed))
        print(seed, json.dumps(runs[str(seed)]), flush=True)
    spread = {
        key: {
            "mean": round(float(np.mean([run[key] for run in runs.values()])), 4),
            "lowest": min(run[key] for run in runs.values()),
            "highest": max(run[key] for run in runs.values()),
        }
        for key in (*KEYS, "wall_s", "cpu_s")
    }
    settings = {"size": arguments.size, "steps": arguments.steps, "batch": 32, "threads": arguments.threads}
    report = {
        "settings": settings | {"split": arguments.split.name, "boxes": "ground truth, tight around the mask"},
        "results": {"seeds": runs, "all": spread},
    }
    print(write_result("crop", report, arguments.output))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--size", default="M")
    parser.add_argument("--steps", type=int, default=CROP_STEPS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def train(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Train one seed and keep its report with both times."""
    folder = arguments.runs / f"{arguments.size}_{seed}"
    config = crop_config(arguments.steps, seed)
    job = FinetuneJob(
        model="crop",
        data=arguments.data,
        output=folder,
        config=config,
        split=arguments.split,
        batch=32,
        size=arguments.size,
        resume=(folder / "resume.pt").is_file(),
    )
    wall, cpu = time.perf_counter(), time.process_time()
    report = run_job(job, lambda stage, step, losses: None, print)
    report |= {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    (folder / RESULT).write_text(json.dumps(report, indent=1))
    return report


def summarise(report: dict[str, Any]) -> dict[str, Any]:
    """What a result keeps of a run."""
    quality = report["stages"][-1]["quality"]["box"]
    row = {"miou": quality["miou"], **quality["by_size"], **quality["by_class"]}
    return row | {
        "predicted_iou_error": quality["predicted_iou_error"],
        "n_objects": quality["n_objects"],
        "wall_s": round(report["wall_s"]),
        "cpu_s": round(report["cpu_s"]),
    }


if __name__ == "__main__":
    main()
