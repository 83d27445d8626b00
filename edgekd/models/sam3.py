"""SAM3 as transformers builds it: the released size from a local folder, and a tiny random one for tests and drills.

In: a folder with config.json and safetensors (the weights are gated, under the SAM License), or nothing. Out: a
`Sam3Model` with spectral adapters on the three pyramid levels that its heads read, and its vision path for export.
"""

from __future__ import annotations

import pickle
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


def load_tuned_sam3(folder: Path, tuned: Path) -> nn.Module:
    """SAM3 from a local folder with what `edgekd finetune --model sam3` changed: adapters, last blocks and heads.

    Raises ModelError when `tuned` is not such a file, or was tuned from a SAM3 of another size.
    """
    delta = read_delta(tuned)
    ranks = [len(tensor) for name, tensor in delta.items() if name.endswith(".adapter.down_low.weight")]
    model = load_sam3(folder, ranks[0] if ranks else ADAPTER_RANK)
    own = model.state_dict()
    for name, tensor in delta.items():
        if name not in own or own[name].shape != tensor.shape:
            expected = tuple(own[name].shape) if name in own else "no such tensor"
            raise ModelError(
                f"{tuned} holds {name} {tuple(tensor.shape)} and the model of {folder} has {expected}; "
                "give the folder that the fine-tuning began with"
            )
    model.load_state_dict(delta, strict=False)
    return model.eval()


def read_delta(path: Path) -> dict[str, Tensor]:
    """The tensors of a best.pt that `edgekd finetune --model sam3` wrote; no code in it is run.

    Raises ModelError when the file is missing, damaged or another checkpoint.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); give the best.pt of a fine-tuned SAM3") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelError(
            f"{path} is not a checkpoint of weights alone ({type(error).__name__}); give the best.pt of a tuned SAM3"
        ) from error
    delta = content.get("sam3_delta") if isinstance(content, dict) else None
    if not isinstance(delta, dict) or not all(isinstance(value, Tensor) for value in delta.values()):
        raise ModelError(f"{path} holds no changes to a SAM3; give the best.pt of edgekd finetune --model sam3")
    return delta


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
