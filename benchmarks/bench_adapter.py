"""Does the spectral adapter help a fine-tuned segmenter? The same budget with and without it, paired seeds.

    python benchmarks/bench_adapter.py tinysam-nwpu.pt --data FOLDER_OR_COCO_JSON [--seeds 3] [--steps 60]

A TinySAM that was trained on other pictures is fine-tuned on new ones, once with its last blocks and the adapter
trainable (stage 1) and once with the last blocks alone; both see the same pictures, crops and prompts of a seed, and
the seed draws the split. Each run is one line of the JSON-lines file `--runs`, so a cut benchmark goes on where it
stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from paired import paired
from result_file import write_result

from edgekd.files import sha256_of
from edgekd.train.finetune.job import FinetuneJob, parse_stages, run_job
from edgekd.train.finetune.loop import FinetuneConfig

ARMS = ("none", "adapter")


def main() -> None:
    options = parse()
    options.runs.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(options.seeds):
        for arm in ARMS:
            if not any(run["arm"] == arm and run["seed"] == seed for run in read_runs(options.runs)):
                run = train(arm, seed, options)
                with options.runs.open("a") as file:
                    file.write(json.dumps(run) + "\n")
    write(options, read_runs(options.runs))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path, help="TinySAM checkpoint to fine-tune")
    parser.add_argument("--data", type=Path, required=True, help="folder of images/ and labels/, or a COCO JSON")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--validation-px", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench_adapter/runs.jsonl"))
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def train(arm: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    import torch

    torch.set_num_threads(options.threads)
    job = FinetuneJob(
        model="tinysam",
        data=options.data,
        output=options.runs.parent / f"{arm}_{seed}",
        config=FinetuneConfig(parse_stages("1", options.steps), seed=seed, keep=0.0),
        weights=options.weights,
        validation_px=options.validation_px,
        adapter_rank=options.rank if arm == "adapter" else 0,
    )
    report = run_job(job, lambda stage, step, losses: None, print)
    before, after = report["stages"][0], report["stages"][-1]
    return {
        "arm": arm,
        "seed": seed,
        "before": miou_by_prompt(before),
        "after": miou_by_prompt(after),
        "train_s": round(report["train_seconds"], 1),
        "n_train": report["data"]["n_train"],
        "n_validation": len(report["data"]["validation"]),
    }


def miou_by_prompt(stage: dict[str, Any]) -> dict[str, float]:
    return {name: quality["miou"] for name, quality in stage["quality"].items() if isinstance(quality, dict)}


def read_runs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write(options: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    of = {arm: [run for run in runs if run["arm"] == arm] for arm in ARMS}
    prompts = list(runs[0]["after"])
    results = {
        prompt: {
            "before": [run["before"][prompt] for run in of["none"]],
            **{arm: [run["after"][prompt] for run in of[arm]] for arm in ARMS},
            "adapter_minus_none": paired(
                [run["after"][prompt] for run in of["adapter"]], [run["after"][prompt] for run in of["none"]]
            ),
        }
        for prompt in prompts
    }
    settings = {name: getattr(options, name) for name in ("seeds", "steps", "rank", "validation_px", "threads")}
    result = {
        "weights_sha256": sha256_of(options.weights),
        "settings": settings | {"data": options.data.name, "n_train": runs[0]["n_train"]},
        "results": results,
        "train_s": {arm: [run["train_s"] for run in of[arm]] for arm in ARMS},
    }
    write_result("adapter", result, options.output)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
