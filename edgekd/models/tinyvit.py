"""TinySAM's image encoder: timm's TinyViT-5M, one stride changed, and SAM's four-layer neck.

In: normalised pictures (B, 3, H, W), both sides multiples of 32. Out: image_embeddings (B, 256, H/16, W/16).
`official_encoder_key` and `encoder_key` translate between this module's parameter names and those of tinysam.pth
and mobile_sam.pt. The blocks hold no size: windows (7, 14, 7 tokens) are padded, so 256 px crops, 512, 1024 and
640 x 1024 px pictures go through the same weights.
"""

from __future__ import annotations

import re
from typing import Any

import timm
import torch
from torch import Tensor, nn

EMBEDDING_CHANNELS = 256
STRIDE_PX = 16
"""Input pixels per embedding cell; timm's last stage would halve once more."""

SIDE_MULTIPLE_PX = 32

N_UNUSED_CLASSES = 1000
"""The official checkpoints carry TinyViT's ImageNet head (norm_head, head); no segmenter ever reads it."""


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a (B, C, H, W) map."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise every pixel's channel vector; same shape out."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _forget_attention_bias(module: nn.Module, _incompatible: object) -> None:
    # timm caches the gathered biases in eval mode; loading weights after a forward would leave the old ones in use
    # and the masks silently wrong (the trap of the official TinySAM and MobileSAM builders).
    for part in module.modules():
        cache = getattr(part, "attention_bias_cache", None)
        if cache:
            cache.clear()


class TinyVitEncoder(nn.Module):
    """TinyViT-5M features at stride 16 and SAM's neck (MobileSAM, arXiv 2306.14289; TinySAM, arXiv 2312.13789)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = timm.create_model("tiny_vit_5m_224", pretrained=False, features_only=True, out_indices=(3,))
        self.backbone.get_submodule("stages_3.downsample.conv2.conv").stride = (1, 1)
        channels = EMBEDDING_CHANNELS
        self.neck = nn.Sequential(
            nn.Conv2d(320, channels, 1, bias=False),
            LayerNorm2d(channels, eps=1e-6),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels, eps=1e-6),
        )
        self.register_load_state_dict_post_hook(_forget_attention_bias)

    def forward(self, image: Tensor) -> Tensor:
        """Encode normalised pictures (B, 3, H, W), sides multiples of 32, to (B, 256, H/16, W/16)."""
        (features,) = self.backbone(image)
        embeddings: Tensor = self.neck(features)
        return embeddings


def encoder_key(official: str) -> str:
    """Name in `TinyVitEncoder` of an official key below `image_encoder.` (not of the unused head)."""
    if official.startswith("neck."):
        return official
    key = official.replace("patch_embed.seq.0", "patch_embed.conv1").replace("patch_embed.seq.2", "patch_embed.conv2")
    key = key.replace(".c.weight", ".conv.weight")
    # timm opens a stage with the patch merging that the official code puts at the end of the stage before.
    key = re.sub(r"^layers\.(\d)\.downsample", lambda m: f"stages_{int(m[1]) + 1}.downsample", key)
    return "backbone." + re.sub(r"^layers\.(\d)\.", r"stages_\1.", key)


def official_encoder_key(key: str) -> str:
    """Official name, below `image_encoder.`, of a key of `TinyVitEncoder`: the inverse of `encoder_key`."""
    if key.startswith("neck."):
        return key
    key = key.removeprefix("backbone.")
    key = key.replace("patch_embed.conv1", "patch_embed.seq.0").replace("patch_embed.conv2", "patch_embed.seq.2")
    key = re.sub(r"(conv\d?|seq\.\d)\.conv\.weight$", r"\1.c.weight", key)
    key = re.sub(r"^stages_(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", key)
    return re.sub(r"^stages_(\d)\.", r"layers.\1.", key)


def unused_head() -> dict[str, Any]:
    """Neutral tensors for the official head keys, so that a saved checkpoint loads strictly elsewhere."""
    return {
        "norm_head.weight": torch.ones(320),
        "norm_head.bias": torch.zeros(320),
        "head.weight": torch.zeros(N_UNUSED_CLASSES, 320),
        "head.bias": torch.zeros(N_UNUSED_CLASSES),
    }
