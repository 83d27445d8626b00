"""DINOv2 and DINOv3 vision transformers as teachers: a local weight file in, a map of patch features out.

The network itself is timm's; what is here is the reading of the files. Three layouts of names are in use
(facebookresearch, timm, transformers) and two families (DINOv2: learned positions, patch 14; DINOv3: rotary positions,
patch 16). The family, width, depth, registers and gated MLP are read from the tensors, never from a file name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.errors import ModelError, first_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HEAD_WIDTH = 64  # channels per attention head in every published ViT-S, B, L, g and H+ of both families

# transformers -> facebookresearch, applied in order; query, key and value are joined afterwards
_TRANSFORMERS_NAMES = (
    (r"^(?:dinov2(?:_with_registers)?|dinov3_vit)\.", ""),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.|model\.)?layer\.", "blocks."),
    (r"\.attention\.(?:attention\.)?(q|k|v)_proj\.", r".attn.\1."),
    (r"\.attention\.attention\.(query|key|value)\.", lambda m: f".attn.{m[1][0]}."),
    (r"\.attention\.(?:o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    (r"^layernorm\.", "norm."),
)


@dataclass(frozen=True)
class VitShape:
    """What the tensors of a checkpoint say about its network."""

    family: str
    width: int
    depth: int
    patch_px: int
    n_registers: int
    is_gated: bool
    hidden_width: int
    has_qkv_bias: bool
    n_positions: int


def load_vit(path: str | Path, n_heads: int | None = None) -> tuple[nn.Module, VitShape]:
    """Load a DINOv2 or DINOv3 ViT in float32, in eval mode.

    Args:
        path: `.safetensors`, or a `.pth`/`.bin`/`.pt` state dict (read without running code from it), in the names of
            facebookresearch, timm or transformers.
        n_heads: attention heads, by default width / 64.

    Returns:
        timm's network and the shape read from the tensors.

    Raises:
        ModelError: the file is missing, unreadable, or holds no DINOv2 or DINOv3 ViT.
    """
    tensors = facebook_names(_read_tensors(Path(path)))
    if "patch_embed.proj.weight" not in tensors or "cls_token" not in tensors or "blocks.0.norm1.weight" not in tensors:
        raise ModelError(
            f"{path} holds no DINOv2 or DINOv3 vision transformer; give its weights as .safetensors or .pth"
        )
    shape = read_shape(tensors)
    network = _build(shape, n_heads or max(shape.width // HEAD_WIDTH, 1))
    try:
        network.load_state_dict(_timm_names(tensors, shape))
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise ModelError(f"{path} does not fit the {shape.family} that its tensors announce: {reason[:200]}") from error
    return network.float().eval(), shape


def patch_features(
    network: nn.Module, shape: VitShape, images: Tensor, block: int, side_px: int | None = None
) -> Tensor:
    """Normalised patch features of one block, CLS and registers dropped.

    Args:
        network: from `load_vit`.
        shape: from `load_vit`.
        images: RGB (N, 3, H, W) in 0..1.
        block: 1 is the first block, `shape.depth` the last.
        side_px: resize the longer side to this before the network sees it; by default the picture's own.

    Returns:
        (N, width, h, w) with h and w the nearest whole numbers of patches: a picture that is not a multiple of a patch
        is resized, never cropped, so every feature stays over its pixels.
    """
    height, width = images.shape[-2:]
    scale = 1.0 if side_px is None else side_px / max(height, width)
    size = [max(round(side * scale / shape.patch_px), 1) * shape.patch_px for side in (height, width)]
    if size != [height, width]:
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
    mean = images.new_tensor(IMAGENET_MEAN)[:, None, None]
    std = images.new_tensor(IMAGENET_STD)[:, None, None]
    maps: Tensor = network.forward_intermediates(
        (images - mean) / std, indices=[block - 1], norm=True, stop_early=True, intermediates_only=True
    )[0]
    return maps


def facebook_names(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of any of the three layouts to those of facebookresearch (timm's differ in `_timm_names`)."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = re.sub(r"^(?:module|teacher|backbone|_orig_mod)\.", "", re.sub(r"^(?:module|teacher)\.", "", name))
        for pattern, replacement in _TRANSFORMERS_NAMES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    for name in [name for name in renamed if name.endswith(".attn.q.weight")]:
        _join_qkv(renamed, name.removesuffix("q.weight"))
    gated = "blocks.0.mlp.w1.weight" in renamed
    up, down = ("w2", "w3") if gated else ("fc1", "fc2")
    return {
        name.replace(".mlp.up_proj.", f".mlp.{up}.").replace(".mlp.down_proj.", f".mlp.{down}."): tensor
        for name, tensor in renamed.items()
    }


def _join_qkv(tensors: dict[str, Tensor], prefix: str) -> None:
    """Replace q, k, v of one block by qkv in place; a missing bias (DINOv3's key has none) is zero."""
    weights = [tensors.pop(f"{prefix}{part}.weight") for part in "qkv"]
    biases = [tensors.pop(f"{prefix}{part}.bias", None) for part in "qkv"]
    tensors[f"{prefix}qkv.weight"] = torch.cat(weights)
    if any(bias is not None for bias in biases):
        zero = torch.zeros(weights[0].shape[0], dtype=weights[0].dtype)
        tensors[f"{prefix}qkv.bias"] = torch.cat([zero if bias is None else bias for bias in biases])


def read_shape(tensors: dict[str, Tensor]) -> VitShape:
    """Read family and sizes from tensors in facebookresearch names."""
    width, _, patch_px, _ = tensors["patch_embed.proj.weight"].shape
    depth = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("blocks."))
    registers = [tensors[name] for name in ("register_tokens", "storage_tokens", "reg_token") if name in tensors]
    mlp = {name.split(".")[3]: t for name, t in tensors.items() if re.match(r"blocks\.0\.mlp\.\w+\.weight", name)}
    hidden = next(tensor.shape[0] for name, tensor in mlp.items() if name in ("fc1", "w12", "w1", "fc1_g"))
    positions = tensors.get("pos_embed")
    return VitShape(
        family="DINOv2" if positions is not None else "DINOv3",
        width=int(width),
        depth=depth,
        patch_px=int(patch_px),
        n_registers=int(registers[0].shape[1]) if registers else 0,
        is_gated=bool({"w12", "w1", "fc1_g"} & mlp.keys()),
        hidden_width=int(hidden) * (2 if "w1" in mlp and positions is not None else 1),
        has_qkv_bias=any(re.match(r"blocks\.0\.attn\.(qkv\.bias|q_bias)$", name) for name in tensors),
        n_positions=0 if positions is None else int(positions.shape[1]),
    )


def _build(shape: VitShape, n_heads: int) -> nn.Module:
    from functools import partial

    from timm.layers import LayerNorm, SwiGLUPacked
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    common: dict[str, Any] = {
        "patch_size": shape.patch_px,
        "embed_dim": shape.width,
        "depth": shape.depth,
        "num_heads": n_heads,
    }
    common |= {"num_classes": 0, "init_values": 1e-5, "dynamic_img_size": True}
    ratio = shape.hidden_width / shape.width
    if shape.family == "DINOv2":
        gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU} if shape.is_gated else {}
        return VisionTransformer(
            img_size=isqrt(shape.n_positions) * shape.patch_px,
            reg_tokens=shape.n_registers,
            no_embed_class=True,
            mlp_ratio=ratio,
            global_pool="token",
            **gated,
            **common,
        )
    return Eva(
        img_size=shape.patch_px * 14,
        num_reg_tokens=shape.n_registers,
        qkv_bias=shape.has_qkv_bias,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        swiglu_mlp=shape.is_gated,
        swiglu_align_to=1,
        mlp_ratio=ratio,
        use_fc_norm=False,
        norm_layer=partial(LayerNorm, eps=1e-5),
        global_pool="token",
        **common,
    )


def _timm_names(tensors: dict[str, Tensor], shape: VitShape) -> dict[str, Tensor]:
    """facebookresearch (or timm) names -> those of the network that `_build` makes."""
    return _timm_dinov2(tensors) if shape.family == "DINOv2" else _timm_dinov3(tensors)


def _timm_dinov2(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, tensor in tensors.items():
        if name == "mask_token" or name.startswith("head."):
            continue
        name = {"register_tokens": "reg_token"}.get(name, name)
        renamed[name.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")] = tensor
    for name in [name for name in renamed if ".mlp.w1." in name]:  # transformers keeps the two halves of w12 apart
        halves = renamed.pop(name), renamed.pop(name.replace(".w1.", ".w2."))
        renamed[name.replace(".w1.", ".fc1.")] = torch.cat(halves)
    positions = renamed["pos_embed"]
    if (
        isqrt(positions.shape[1]) ** 2 != positions.shape[1]
    ):  # the first position belongs to CLS; timm keeps it inside the token
        renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
        renamed["pos_embed"] = positions[:, 1:]
    return renamed


def _timm_dinov3(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    mlp_names = {"w1": "fc1_g", "w2": "fc1_x", "w3": "fc2"}
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if (
            name == "mask_token"
            or "rope" in name
            or name.endswith(".bias_mask")
            or name.startswith(("head.", "local_"))
        ):
            continue
        name = {"storage_tokens": "reg_token", "register_tokens": "reg_token"}.get(name, name)
        name = re.sub(r"\.ls(\d)\.gamma$", r".gamma_\1", name)
        name = re.sub(r"\.mlp\.(\w+)\.", lambda m: f".mlp.{mlp_names.get(m[1], m[1])}.", name)
        if name.endswith(".attn.qkv.bias"):  # the key has no bias: whatever is stored for it is masked
            query, _, value = tensor.chunk(3)
            prefix = name.removesuffix("qkv.bias")
            renamed |= {f"{prefix}q_bias": query, f"{prefix}v_bias": value}
            continue
        renamed[name] = tensor
    return renamed


def _read_tensors(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path} does not exist; give the weights of a DINOv2 or DINOv3 ViT (.safetensors or .pth)")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: object = load_file(path)
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zipfile and pickle raise a dozen types; all mean an unreadable file
        raise ModelError(f"{path} cannot be read as a file of weights: {first_line(error)}") from error
    for key in ("teacher", "model", "state_dict"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ModelError(f"{path} holds no state dict of tensors; give the weights of a DINOv2 or DINOv3 ViT")
    return found
