"""The `crop` segmenter: one small U-shaped network of plain convolutions for the crop of one box.

In: crops (n, S, S, 3) uint8 RGB. Out: mask_logits (n, S, S) float32 at the resolution of the crop, and predicted_iou
(n,) float32. Normalisation is inside. Everything is convolution, batch norm, ReLU, nearest enlargement and one pixel
shuffle, so that every quantiser and every accelerator takes it; the object's box needs no prompt, since the box is
where the crop is.

Legend: c0..c3 channels at stride 2, 4, 8 and 16.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import ModelError, first_line
from edgekd.model_set import CropInput

STRIDE_PX = 16
PIXEL_MEAN, PIXEL_STD = 114.0, 58.0
WINDOW_FACTOR = 1.3
"""Side of the crop over side of the box: what the network is trained with, and how far a mask may leave its box."""

PAD = (114, 114, 114)
CHECKPOINT_KEY = "crop_segmenter"


@dataclass(frozen=True)
class CropSize:
    """One size of the network: its name, the side of its crops and its channels at stride 2, 4, 8 and 16."""

    name: str
    side_px: int
    channels: tuple[int, int, int, int]


SIZES = {
    "S": CropSize("S", 64, (24, 48, 64, 96)),
    "M": CropSize("M", 96, (32, 48, 96, 160)),
    "L": CropSize("L", 128, (32, 64, 128, 192)),
}


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, and ReLU unless `relu` is False."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> None:
        layers: list[nn.Module] = [nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, bias=False)]
        layers.append(nn.BatchNorm2d(n_out))
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(ConvNorm(channels, channels), ConvNorm(channels, channels, relu=False))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) to the same."""
        return F.relu(x + self.body(x))


class Merge(nn.Module):
    """Coarse features, enlarged twice, plus fine features, then one convolution at the fine resolution."""

    def __init__(self, n_coarse: int, n_fine: int) -> None:
        super().__init__()
        self.coarse = ConvNorm(n_coarse, n_fine, 1, relu=False)
        self.fine = ConvNorm(n_fine, n_fine, 1, relu=False)
        self.mix = ConvNorm(n_fine, n_fine)

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """(n, n_coarse, h, w) and (n, n_fine, 2h, 2w) to (n, n_fine, 2h, 2w)."""
        enlarged = F.interpolate(self.coarse(coarse), scale_factor=2.0, mode="nearest")
        return self.mix(F.relu(enlarged + self.fine(fine)))  # type: ignore[no-any-return]


class CropSegmenter(nn.Module):
    """The network; see the module.

    Raises:
        ModelError: the side of the crop is not a multiple of 16.
    """

    def __init__(self, size: CropSize) -> None:
        super().__init__()
        if size.side_px % STRIDE_PX or size.side_px < STRIDE_PX:
            raise ModelError(f"the crop side is {size.side_px} px, expected a multiple of {STRIDE_PX}")
        self.size = size
        c = size.channels
        self.stem = ConvNorm(3, c[0], stride=2)
        self.stages = nn.ModuleList(
            nn.Sequential(ConvNorm(c[i], c[i + 1], stride=2), Residual(c[i + 1]), Residual(c[i + 1])) for i in range(3)
        )
        self.merges = nn.ModuleList(Merge(c[i + 1], c[i]) for i in (2, 1, 0))
        self.last = ConvNorm(c[0], c[0])
        self.mask = nn.Conv2d(c[0], 4, 3, padding=1)
        self.quality = nn.Sequential(nn.Linear(c[3] + c[0], 64), nn.ReLU(), nn.Linear(64, 1))
        nn.init.constant_(self.quality[2].bias, math.log(4.0))  # starts at a predicted IoU of 0.8

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(n, S, S, 3) uint8 RGB to mask_logits (n, S, S) and predicted_iou (n,), 0 to 1."""
        # TensorRT takes uint8 only where it becomes float at once; the order of the axes is channels_last already.
        x = (crops.float() - PIXEL_MEAN) * (1 / PIXEL_STD)
        features = [self.stem(x.permute(0, 3, 1, 2))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        y = features[3]
        for merge, fine in zip(self.merges, features[2::-1], strict=True):
            y = merge(y, fine)
        y = self.last(y)
        logits = F.pixel_shuffle(self.mask(y), 2).squeeze(1)
        # Both ends tell how good a mask is; its error must not pull on the features that draw the mask.
        seen = torch.cat([features[3].mean(dim=(2, 3)), y.mean(dim=(2, 3))], dim=1).detach()
        return logits, self.quality(seen).squeeze(1).sigmoid()


def crop_input_of(model: CropSegmenter) -> CropInput:
    """How the runtime cuts the crops of this network."""
    red, green, blue = PAD
    return CropInput(side_px=model.size.side_px, window_factor=WINDOW_FACTOR, pad=(red, green, blue))


def checkpoint_of(model: CropSegmenter, class_names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Plain values and tensors from which `load_crop_segmenter` makes the network again."""
    state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    return {CHECKPOINT_KEY: asdict(model.size), "state": state, "class_names": list(class_names)}


def load_crop_segmenter(path: Path) -> CropSegmenter:
    """Read a checkpoint of `edgekd finetune --model crop`, in eval mode, fp32 also where the file holds fp16.

    Raises:
        ModelError: the file is missing, damaged or holds another network.
    """
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give the best.pt of: edgekd finetune --model crop")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        shape = content[CHECKPOINT_KEY]
        model = CropSegmenter(CropSize(shape["name"], shape["side_px"], tuple(shape["channels"])))
        model.load_state_dict(content["state"])
    except ModelError:
        raise
    except Exception as reason:  # torch, zipfile and pickle raise a dozen types; all mean another file
        raise ModelError(
            f"{path} is not a checkpoint of the crop segmenter ({first_line(reason)}); give the best.pt of: "
            "edgekd finetune --model crop"
        ) from reason
    model.float().eval()
    return model


def is_crop_checkpoint(path: Path) -> bool:
    """Say whether a file holds a crop segmenter; files that cannot be read do not."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception:  # torch, zipfile and pickle raise a dozen types; the loader that is asked next says the reason
        return False
    return isinstance(content, dict) and CHECKPOINT_KEY in content
