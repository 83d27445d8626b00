"""How good a trained segmenter is on labelled pictures it has not seen, against what needs no training.

    python benchmarks/bench_finetune.py WEIGHTS --data COCO.json [--images DIR] [--split SPLIT.json] [--baselines]

Mean IoU per object with ground-truth boxes, by COCO size and class, at every input size asked for; point prompts and
box with centre; the filled box, the inscribed ellipse and GrabCut; seconds per picture in PyTorch. `--grid FILE.png`
draws the objects with the highest and the lowest IoU, `--command` is recorded as what made the weights. `--steps N`
asks another question: where fine-tuning begins. It trains N steps of each stage from the weights, with the defaults of
`edgekd finetune` on the training pictures of the split, and measures before and after. WEIGHTS is a file or a name
such as tinysam-nwpu.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from result_file import write_result

from edgekd.data.labels import LabelledPicture
from edgekd.data.read import read_labels, read_pixels
from edgekd.files import sha256_of
from edgekd.models.tinysam import TinySam, load_tinysam
from edgekd.models.weights import resolve
from edgekd.train.finetune.job import NWPU_SPLIT, FinetuneJob, config_for, run_job
from edgekd.train.finetune.prompts import PromptKind
from edgekd.train.finetune.quality import (
    BASELINES,
    ObjectMask,
    ObjectScore,
    baseline_objects,
    predict_objects,
    score,
    summarise,
)

TILE_PX, TILES_PER_ROW = 160, 8


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    names = json.loads(arguments.split.read_text())["validation"]
    images = arguments.images or arguments.data.parent / "images"
    samples = read_labels(arguments.data, images).only(names).for_masks().pictures[:: arguments.every]
    model = load_tinysam(arguments.weights)
    results: dict[str, object] = {}
    if arguments.steps:
        write(arguments, samples, start(arguments, samples), "finetune_start")
        return
    for side, kind in [(side, kind) for side in arguments.sides for kind in arguments.prompts]:
        results[f"{kind}_{side}px"] = measure(model, samples, side, kind)
        print(f"{kind} at {side} px", json.dumps(results[f"{kind}_{side}px"]), flush=True)
    if arguments.baselines:
        for baseline in BASELINES:
            results[baseline] = summarise([s for sample in samples for s in score(baseline_objects(sample, baseline))])
            print(baseline, json.dumps(results[baseline]), flush=True)
    if arguments.grid:
        draw_grid(model, samples, arguments.sides[0], arguments.grid)
    write(arguments, samples, results)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=resolve, help="best.pt, tinysam.pth, mobile_sam.pt or a name")
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON with polygons")
    parser.add_argument("--images", type=Path, help="by default images/ beside the JSON")
    parser.add_argument("--split", type=Path, default=NWPU_SPLIT, help="JSON with a list `validation`")
    parser.add_argument("--sides", type=int, nargs="+", default=[1024, 512], help="longer side of the input, px")
    parser.add_argument("--prompts", nargs="+", default=["box", "point", "box+centre"])
    parser.add_argument("--every", type=int, default=1, help="take every n-th validation picture")
    parser.add_argument("--steps", type=int, default=0, help="train so many per stage, measure before and after")
    parser.add_argument("--stages", default="1,2,3", help="of --steps")
    parser.add_argument("--baselines", action="store_true", help="box fill, ellipse and GrabCut as well")
    parser.add_argument("--grid", type=Path, help="PNG of the best and worst objects")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--command", default="", help="the command that trained the weights, for the record")
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def measure(model: TinySam, samples: Sequence[LabelledPicture], side: int, kind: PromptKind) -> dict[str, object]:
    began = time.perf_counter()
    scores: list[ObjectScore] = []
    for sample in samples:
        scores += score(predict_objects(model, sample, side, kind))
    return summarise(scores) | {"seconds_per_picture": round((time.perf_counter() - began) / len(samples), 3)}


def start(arguments: argparse.Namespace, samples: Sequence[LabelledPicture]) -> dict[str, object]:
    """Mean IoU with box prompts before and after a few steps; the run itself validates on one picture."""
    side, lists = arguments.sides[0], json.loads(arguments.split.read_text())
    config = config_for("tinysam", arguments.stages, arguments.steps, None, 0, from_weights=True)
    found: dict[str, object] = {"learning_rate": config.learning_rate}
    found["before"] = measure(load_tinysam(arguments.weights), samples, side, "box")
    print("before", json.dumps(found["before"]), flush=True)
    with tempfile.TemporaryDirectory() as room:
        split = Path(room) / "split.json"
        split.write_text(json.dumps({"train": lists["train"], "validation": lists["validation"][:1]}))
        job = FinetuneJob(
            model="tinysam", data=arguments.data, images=arguments.images, output=Path(room) / "run", config=config,
            weights=arguments.weights, split=split,
        )  # fmt: skip
        run_job(job, lambda stage, step, losses: None, print)
        found["after"] = measure(load_tinysam(job.output / "best.pt"), samples, side, "box")
    print("after", json.dumps(found["after"]), flush=True)
    return found


def draw_grid(model: TinySam, samples: Sequence[LabelledPicture], side: int, path: Path) -> None:
    """Two rows each of the highest and of the lowest IoU: truth in green, prediction in red, both in yellow."""
    tiles = [(m.iou, tile(m, sample)) for sample, m in every_object(model, samples, side)]
    tiles.sort(key=lambda item: -item[0])
    n = min(2 * TILES_PER_ROW, len(tiles) // 2)
    chosen = tiles[:n] + tiles[-n:]
    rows = [np.hstack([t for _, t in chosen[i : i + TILES_PER_ROW]]) for i in range(0, len(chosen), TILES_PER_ROW)]
    width = max(row.shape[1] for row in rows)
    padded = [cv2.copyMakeBorder(row, 0, 0, 0, width - row.shape[1], cv2.BORDER_CONSTANT) for row in rows]
    cv2.imwrite(str(path), np.vstack(padded))


def every_object(
    model: TinySam, samples: Sequence[LabelledPicture], side: int
) -> Iterator[tuple[LabelledPicture, ObjectMask]]:
    for sample in samples:
        for found in predict_objects(model, sample, side, "box"):
            yield sample, found


def tile(found: ObjectMask, sample: LabelledPicture) -> np.ndarray:
    ys, xs = np.nonzero(found.truth)
    reach = max(int(0.75 * max(np.ptp(xs), np.ptp(ys))), 16)
    y, x = (ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2
    rows = slice(max(y - reach, 0), y + reach)
    columns = slice(max(x - reach, 0), x + reach)
    window = read_pixels(sample)[rows, columns].copy()
    for mask, colour in ((found.truth, (0, 255, 0)), (found.predicted, (0, 0, 255))):
        contours, _ = cv2.findContours(mask[rows, columns].astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        layer = cv2.drawContours(np.zeros_like(window), contours, -1, colour, 1)
        window = np.maximum(window, layer)
    small = cv2.resize(window, (TILE_PX, TILE_PX), interpolation=cv2.INTER_LINEAR)
    cv2.putText(small, f"{found.iou:.2f}", (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(small)


def write(
    arguments: argparse.Namespace,
    samples: Sequence[LabelledPicture],
    results: dict[str, object],
    theme: str = "finetune",
) -> None:
    report = {
        "weights_sha256": sha256_of(arguments.weights),
        "settings": {
            "data": arguments.data.parent.name,
            "split": arguments.split.name,
            "n_pictures": len(samples),
            "threads": arguments.threads,
            "training_command": arguments.command,
            "steps_per_stage": arguments.steps,
            "stages": arguments.stages if arguments.steps else "",
            "masks": "cut to the box with box prompts, as the runtime returns them; PyTorch fp32",
        },
        "results": results,
    }
    print(write_result(theme, report, arguments.output))


if __name__ == "__main__":
    main()
