"""The shipped models with small inputs, and pictures to calibrate them on: real weights, seconds instead of minutes."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from edgekd.model_set import FILE_NAME, read_model_set
from edgekd.package_files import default_models

DETECTOR_PX = 320
ENCODER_PX = 256


def write_small_models(folder: Path) -> Path:
    """Copy the shipped model set with inputs of 320 and 256 px."""
    shutil.copytree(default_models(), folder)
    model_set = read_model_set(folder)
    pipeline = model_set.pipeline
    sizes = {
        "detector_input": pipeline.detector_input.model_copy(
            update={"height_px": DETECTOR_PX, "width_px": DETECTOR_PX}
        ),
        "encoder_input": pipeline.encoder_input.model_copy(update={"height_px": ENCODER_PX, "width_px": ENCODER_PX}),
    }
    smaller = model_set.model_copy(update={"pipeline": pipeline.model_copy(update=sizes)})
    (folder / FILE_NAME).write_text(smaller.model_dump_json())
    return folder


def write_pictures(folder: Path, scene: np.ndarray, n: int = 4) -> Path:
    """Cut a picture into n overlapping ones, `00.png` and on."""
    folder.mkdir(parents=True)
    width = scene.shape[1] * 2 // 3
    for index in range(n):
        left = index * (scene.shape[1] - width) // max(n - 1, 1)
        cv2.imwrite(str(folder / f"{index:02}.png"), scene[:, left : left + width])
    return folder
