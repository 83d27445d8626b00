"""Small fine-tuning tasks that several tests share: TinySAM from random weights and the tiny SAM3, on drawn scenes."""

from __future__ import annotations

from pathlib import Path

import torch
from segmentation_scenes import CLASSES, scenes

from edgekd.models.tinysam import TinySam
from edgekd.train.finetune.averaged import Stage
from edgekd.train.finetune.crops import CropRecipe
from edgekd.train.finetune.loop import FinetuneConfig
from edgekd.train.finetune.sam import TinySamData, TinySamTask
from edgekd.train.finetune.sam3 import Sam3Data, Sam3Task

RECIPE = CropRecipe(side_px=64, frames_px=((128, 1.0),), max_objects=2)
CONFIG = FinetuneConfig(stages=(Stage(1, 2), Stage(2, 1)), warmup_steps=1, amp=False, keep=0.0, save_every=1)
SAM3_PX = 112


def make_task(folder: Path, adapter_rank: int = 0, seed: int = 0) -> TinySamTask:
    """A TinySAM of random weights on two drawn pictures."""
    torch.manual_seed(seed)
    pictures = scenes(folder, n=2)
    data = TinySamData(pictures, pictures[:1], pictures[:1], RECIPE, crops_per_step=1, validation_px=(128,))
    return TinySamTask(TinySam(draws_prompts=True).eval(), data, adapter_rank)


def tokens(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask of a class name for the tiny SAM3."""
    number = (*CLASSES, "visual").index(name) + 3
    ids = torch.ones(1, 32, dtype=torch.long)
    ids[0, :3] = torch.tensor([0, number, 2])
    return ids, (torch.arange(32) < 3).long()[None]


def make_sam3_task(folder: Path) -> Sam3Task:
    """The tiny SAM3 on two drawn pictures."""
    from edgekd.models.sam3 import tiny_sam3

    pictures = scenes(folder, n=2, side=SAM3_PX)
    recipe = CropRecipe(side_px=SAM3_PX, frames_px=((SAM3_PX, 1.0),))
    return Sam3Task(tiny_sam3(), Sam3Data(pictures, pictures[:1], pictures[:1], tokens, recipe))
