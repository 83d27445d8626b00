"""Dense targets for an encoder that starts from nothing: what is where, read from the embeddings by 1x1 convolutions.

In: image_embeddings (B, 256, h, w), the pictures, and their objects. Out: one scalar. A prompted mask loss alone is
answered by the prompt's shape long before the encoder has learned anything, and the encoder then gets hardly a
gradient; foreground, class and colour at every cell give it one from the first step. The heads are thrown away after
training.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.losses.segmentation import dice_loss
from edgekd.models.prompt_decoder import MASK_CELL_PX
from edgekd.models.tinyvit import EMBEDDING_CHANNELS, STRIDE_PX
from edgekd.train.finetune.crops import Crop

_CELLS = STRIDE_PX // MASK_CELL_PX
CLASS_WEIGHT = 0.3


class DenseAuxiliary(nn.Module):
    """Heads for foreground and colour (four-pixel cells) and class (embedding cells)."""

    def __init__(self, class_names: Sequence[str]) -> None:
        super().__init__()
        self.number_of = {name: i + 1 for i, name in enumerate(sorted(class_names))}
        self.foreground = nn.Conv2d(EMBEDDING_CHANNELS, _CELLS**2, 1)
        self.colour = nn.Conv2d(EMBEDDING_CHANNELS, 3 * _CELLS**2, 1)
        self.classes = nn.Conv2d(EMBEDDING_CHANNELS, 1 + len(self.number_of), 1)

    def forward(self, embeddings: Tensor, images: Tensor, crops: Sequence[Crop]) -> Tensor:
        """Foreground BCE and dice, class cross-entropy, and colour L1 as a share of the picture's own variation."""
        device = embeddings.device
        union = torch.from_numpy(np.stack([crop.masks.max(axis=0) for crop in crops])).float().unsqueeze(1).to(device)
        target = F.avg_pool2d(union, MASK_CELL_PX)
        logits = F.pixel_shuffle(self.foreground(embeddings), _CELLS).float()
        foreground = F.binary_cross_entropy_with_logits(logits, target) + dice_loss(logits, target).mean()
        labels = torch.from_numpy(np.stack([self._labels(crop) for crop in crops])).to(device)
        classes = F.cross_entropy(self.classes(embeddings).float(), labels)
        cells = F.avg_pool2d(images, MASK_CELL_PX)
        error = (F.pixel_shuffle(self.colour(embeddings), _CELLS).float() - cells).abs().mean()
        variation = (cells - cells.mean(dim=(2, 3), keepdim=True)).abs().mean()
        return foreground + CLASS_WEIGHT * classes + error / variation.clamp(min=1e-3)

    def _labels(self, crop: Crop) -> np.ndarray:
        # The class at the centre of every embedding cell; 0 is background.
        labels = np.zeros(crop.image.shape[1:], np.int64)
        for mask, name in zip(crop.masks, crop.class_names, strict=True):
            labels[mask > 0] = self.number_of.get(name, 0)
        half = STRIDE_PX // 2
        return np.ascontiguousarray(labels[half::STRIDE_PX, half::STRIDE_PX])
