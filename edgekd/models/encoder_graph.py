"""The image encoder as it is exported: attention with three projections in place of one that is split afterwards.

Backends run a matrix product into its final layout faster than one that is cut into three and copied: OpenVINO runs
the cut as `VariadicSplit`, by its reference implementation, before every attention.
"""

from __future__ import annotations

from timm.models.tiny_vit import Attention
from torch import Tensor, nn


class SplitAttention(nn.Module):
    """timm's window attention of TinyViT with fixed weights: the same outputs, up to rounding.

    The scale 1 / sqrt(key_dim) is part of the query's weights, and the bias of each pair of tokens is a constant.
    """

    bias: Tensor

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.n_heads, key_dim = attention.num_heads, attention.key_dim
        self.norm, self.proj = attention.norm, attention.proj
        # One row per output of `qkv`; for each head its query, its key and its value.
        weight = attention.qkv.weight.detach().unflatten(0, (self.n_heads, -1))
        offset = attention.qkv.bias.detach().unflatten(0, (self.n_heads, -1))
        parts = (slice(0, key_dim), slice(key_dim, 2 * key_dim), slice(2 * key_dim, None))
        query, key, value = ((weight[:, part].flatten(0, 1), offset[:, part].flatten()) for part in parts)
        self.query = _linear(query[0] * attention.scale, query[1] * attention.scale)
        self.key, self.value = _linear(*key), _linear(*value)
        self.register_buffer("bias", attention.attention_biases.detach()[:, attention.attention_bias_idxs])

    def forward(self, tokens: Tensor) -> Tensor:
        """Attend within each window: tokens (n_windows, n_tokens, channels) in and out."""
        tokens = self.norm(tokens)
        query = self._heads(self.query(tokens)).transpose(1, 2)
        key = self._heads(self.key(tokens)).permute(0, 2, 3, 1)
        value = self._heads(self.value(tokens)).transpose(1, 2)
        seen = (query @ key + self.bias).softmax(-1) @ value
        out: Tensor = self.proj(seen.transpose(1, 2).flatten(2))
        return out

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (self.n_heads, -1))


def split_projections(encoder: nn.Module) -> int:
    """Replace every window attention below `encoder` by a `SplitAttention`, in place; return how many there were."""
    found = [name for name, module in encoder.named_modules() if isinstance(module, Attention)]
    for name in found:
        parent, _, last = name.rpartition(".")
        setattr(encoder.get_submodule(parent), last, SplitAttention(encoder.get_submodule(name)))
    return len(found)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight.contiguous(), bias.contiguous()
    return layer
