"""The exported form of the encoder's attention computes what timm's attention computes."""

from __future__ import annotations

import copy

import pytest
import torch
from timm.models.tiny_vit import Attention

from edgekd.models.encoder_graph import SplitAttention, split_projections
from edgekd.models.tinyvit import TinyVitEncoder


@pytest.mark.parametrize(("channels", "key_dim", "n_heads", "window"), [(32, 8, 4, 3), (24, 12, 2, 2), (16, 16, 1, 4)])
def test_attention_is_that_of_timm(channels: int, key_dim: int, n_heads: int, window: int) -> None:
    torch.manual_seed(channels)
    attention = Attention(channels, key_dim, n_heads, attn_ratio=2, resolution=(window, window))
    attention.eval()  # returns nothing in timm
    torch.nn.init.normal_(attention.attention_biases)
    tokens = torch.randn(5, window * window, channels)
    with torch.no_grad():
        expected = attention(tokens)
        torch.testing.assert_close(SplitAttention(attention)(tokens), expected, atol=1e-5, rtol=1e-5)
        torch.nn.init.normal_(attention.attention_biases)
        attention.train()  # forgets the biases that timm cached; there is no dropout
        assert (attention(tokens) - expected).abs().max() > 1e-2, "the bias matters to this check"


def test_every_attention_of_the_encoder_is_replaced_and_the_embeddings_stay() -> None:
    torch.manual_seed(0)
    encoder = TinyVitEncoder().eval()
    for name, parameter in encoder.named_parameters():
        if name.endswith("attention_biases"):
            torch.nn.init.normal_(parameter)
    exported = copy.deepcopy(encoder)
    assert split_projections(exported) == 10
    assert not any(isinstance(module, Attention) for module in exported.modules())
    image = torch.randn(1, 3, 96, 160)
    with torch.no_grad():
        expected, found = encoder(image), exported(image)
    assert (found - expected).abs().max() <= 1e-4 * max(1.0, float(expected.abs().max()))
