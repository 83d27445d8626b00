"""The auxiliary heads see what is where, and embeddings that know it cost less."""

from pathlib import Path

import numpy as np
import torch
from segmentation_scenes import CLASSES, scenes
from torch.nn import functional as F

from edgekd.train.finetune.auxiliary import DenseAuxiliary
from edgekd.train.finetune.crops import whole_frame


def test_labels_are_taken_at_cell_centres(tmp_path: Path) -> None:
    crop = whole_frame(scenes(tmp_path)[0], 128)
    labels = DenseAuxiliary(CLASSES)._labels(crop)
    assert labels.shape == (8, 8) and set(np.unique(labels)) == {0, 1, 2}
    for mask, name in zip(crop.masks, crop.class_names, strict=True):
        number = 1 + sorted(CLASSES).index(name)
        assert ((labels == number) == (mask[8::16, 8::16] > 0)).all()


def test_embeddings_that_hold_the_picture_cost_less(tmp_path: Path) -> None:
    torch.manual_seed(0)
    crop = whole_frame(scenes(tmp_path)[0], 128)
    heads = DenseAuxiliary(CLASSES)
    images = torch.from_numpy(crop.image)[None]
    union = torch.from_numpy(crop.masks.max(axis=0)).float()[None, None]
    known = torch.zeros(1, 256, 8, 8)
    known[:, :48] = F.pixel_unshuffle(F.avg_pool2d(images, 4), 4)
    known[:, 48:64] = F.pixel_unshuffle(F.avg_pool2d(union, 4), 4) * 20 - 10
    for head in (heads.colour, heads.foreground, heads.classes):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    heads.colour.weight.data[:, :48, 0, 0] = torch.eye(48)
    heads.foreground.weight.data[:, 48:64, 0, 0] = torch.eye(16)
    blind = heads(torch.zeros(1, 256, 8, 8), images, [crop])
    assert heads(known, images, [crop]) < 0.5 * blind
