"""A small crop segmenter and its data, for tests that take seconds."""

from __future__ import annotations

from pathlib import Path

import torch
from segmentation_scenes import scenes

from edgekd.models.crop_segmenter import CropSegmenter, CropSize
from edgekd.train.finetune.crop import CropData, CropTask
from edgekd.train.finetune.crop_data import PictureStore, crop_objects

TINY = CropSize("tiny", 32, (8, 12, 16, 16))


def tiny_net(seed: int = 0) -> CropSegmenter:
    torch.manual_seed(seed)
    return CropSegmenter(TINY).eval()


def tiny_task(folder: Path, n: int = 4, detail_weight: float = 0.0) -> CropTask:
    pictures = scenes(folder, n)
    objects = crop_objects(pictures, PictureStore())
    return CropTask(tiny_net(), CropData(objects, pictures, batch=8, detail_weight=detail_weight))
