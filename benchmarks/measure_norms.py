"""Measure what every folded batch norm of the shipped models sees: `edgekd/models/norms.npz` (see `models/unfold.py`).

    python benchmarks/measure_norms.py --pictures nwpu/images -o edgekd/models/norms.npz

The pictures are training pictures of the split that the shipped models were trained on, each cut to its middle square
and resized. A run on the same pictures gives the same statistics whatever stands in the file before, because the
functions of the networks do not depend on it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import torch

N_PICTURES = 24
DETECTOR_PX, ENCODER_PX = 512, 448


def main() -> None:
    from edgekd.models import unfold
    from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD
    from edgekd.train.finetune.job import NWPU_SPLIT

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    names = json.loads(NWPU_SPLIT.read_text())["train"]
    chosen = [options.pictures / name for name in names[:: max(1, len(names) // N_PICTURES)][:N_PICTURES]]
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXEL_MEAN, PIXEL_STD))
    detector, segmenter = unfold.folded_detector(), unfold.folded_segmenter()
    found = unfold.measure_norms(detector, pictures(chosen, DETECTOR_PX) / 255, "detector")
    found |= unfold.measure_norms(segmenter.image_encoder, (pictures(chosen, ENCODER_PX) - mean) / std, "encoder")
    np.savez_compressed(options.output, **{name: value.astype(np.float16) for name, value in found.items()})
    print(f"{options.output}: {len(found) // 2} norms on {len(chosen)} pictures")


def pictures(paths: list[Path], side: int) -> torch.Tensor:
    """(N, 3, side, side) RGB, 0..255."""
    from edgekd.runtime.sources import read_picture

    stack = []
    for path in paths:
        picture = read_picture(path)
        height, width = picture.shape[:2]
        short = min(height, width)
        top, left = (height - short) // 2, (width - short) // 2
        square = cv2.resize(picture[top : top + short, left : left + short], (side, side), interpolation=cv2.INTER_AREA)
        stack.append(square[:, :, ::-1].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(stack).astype(np.float32))


if __name__ == "__main__":
    main()
