"""The mask threshold of a trained segmenter, chosen on its training pictures and written into its checkpoint.

    python benchmarks/choose_threshold.py WEIGHTS --data COCO.json -o NEW.pt

A network that is unsure of a mask's rim gives the best IoU at a logit under 0: a cell is worth including from a
probability of half the IoU on. Prints the mean IoU with ground-truth boxes on every `--every`th training picture at
each threshold, and keeps the best.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from edgekd.models.tinysam import load_tinysam, save_tinysam
from edgekd.train.finetune_job import NWPU_SPLIT
from edgekd.train.segmentation_data import read_coco
from edgekd.train.segmentation_quality import predict_objects, score, summarise

THRESHOLDS = (0.0, -0.25, -0.5, -0.75, -1.0)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON; its pictures lie in images/ beside it")
    parser.add_argument("--split", type=Path, default=NWPU_SPLIT)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    names = json.loads(options.split.read_text())["train"]
    samples = read_coco(options.data, options.data.parent / "images", names)[:: options.every]
    model = load_tinysam(options.weights)
    miou = {}
    for model.mask_threshold in THRESHOLDS:
        scores = [s for sample in samples for s in score(predict_objects(model, sample, options.side, "box"))]
        miou[model.mask_threshold] = summarise(scores)["miou"]
        print(f"{model.mask_threshold:+.2f} {miou[model.mask_threshold]:.4f}", flush=True)
    model.mask_threshold = max(miou, key=lambda threshold: miou[threshold])
    save_tinysam(model, options.output)
    print(f"{options.output}: mask_threshold {model.mask_threshold}")


if __name__ == "__main__":
    main()
