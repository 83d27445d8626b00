"""SAM3 as transformers builds it: the released size from a local folder, and a tiny random one for tests and drills.

In: a folder with config.json and safetensors (the weights are gated, under the SAM License), or nothing. Out: a
`Sam3Model` with spectral adapters on the three pyramid levels that its heads read, and its vision path for export.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import BackendUnavailable, ModelError
from edgekd.models.spectral_adapter import attach_adapters

N_LEVELS = 3
"""Pyramid levels in use; the fourth is computed and dropped before the heads."""

ADAPTED_LEVELS = tuple(f"vision_encoder.neck.fpn_layers.{i}" for i in range(N_LEVELS))
ADAPTER_RANK = 80


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as reason:
        raise BackendUnavailable(
            "SAM3 needs transformers, which is not installed; pip install edgekd[sam3]"
        ) from reason
    return transformers


def load_sam3(folder: Path, rank: int = ADAPTER_RANK) -> nn.Module:
    """SAM3 from a local folder in transformers' form, fp32, with fresh adapters (outputs unchanged to the bit).

    Raises ModelError when the folder is not such a model; nothing is downloaded and no code in it is run.
    """
    transformers = _transformers()
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} holds no config.json with safetensors; get facebook/sam3 under its licence and pass its folder"
        )
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if config.model_type not in ("sam3", "sam3_video"):
        raise ModelError(f"{folder} is a '{config.model_type}' model, expected sam3; pass the folder of facebook/sam3")
    model = transformers.Sam3Model.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return with_adapters(model, rank)


def tiny_sam3(seed: int = 0, rank: int = 4) -> nn.Module:
    """A random SAM3 of about 0.35 M parameters for 112 px pictures: every part is there, each a few channels wide."""
    transformers = _transformers()
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    backbone = small | {
        "model_type": "sam3_vit_model",
        "num_hidden_layers": 8,
        "image_size": 112,
        "patch_size": 14,
        "window_size": 4,
        "global_attn_indexes": [3, 7],
        "pretrain_image_size": 56,
    }
    text = small | {"model_type": "clip_text_model", "vocab_size": 99, "projection_dim": 32, "num_hidden_layers": 2}
    text |= {"max_position_embeddings": 32, "hidden_act": "gelu", "bos_token_id": 0, "eos_token_id": 2}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": backbone,
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
            "scale_factors": [4.0, 2.0, 1.0, 0.5],
        },
        text_config=text | {"pad_token_id": 1},
        geometry_encoder_config=small | {"num_layers": 1},
        detr_encoder_config=small | {"num_layers": 2},
        detr_decoder_config=small | {"num_layers": 2, "num_queries": 10},
        mask_decoder_config={"hidden_size": 32, "num_upsampling_stages": 3, "num_attention_heads": 2},
    )
    torch.manual_seed(seed)
    return with_adapters(transformers.Sam3Model(config), rank)


def with_adapters(model: nn.Module, rank: int) -> nn.Module:
    """Attach one spectral adapter to each level in use."""
    attach_adapters(model, ADAPTED_LEVELS, model.config.vision_config.fpn_hidden_size, rank)
    return model


def n_vision_blocks(model: nn.Module) -> int:
    """Transformer blocks of the vision backbone, 32 in the released size."""
    return len(model.get_submodule("vision_encoder.backbone.layers"))


class Sam3VisionPath(nn.Module):
    """What an edge device could run of SAM3: pixels (1, 3, S, S) to the three pyramid levels, finest first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.vision_encoder = model.get_submodule("vision_encoder")

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """Three maps (1, C, S/14 * 4, ...), (1, C, S/14 * 2, ...), (1, C, S/14, ...)."""
        return tuple(self.vision_encoder(pixel_values).fpn_hidden_states[:N_LEVELS])
