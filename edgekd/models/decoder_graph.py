"""SAM's mask decoder rearranged for deployment: the same function of the same weights as `MaskDecoder`, cheaper.

In: a picture's cells, positions and prompt tokens, and the decoder that owns the weights. Out: tokens, the picture's
cells and mask logits. Three rearrangements, each exact in real arithmetic:

- A prompt has T of about 7 tokens and a picture n = h*w cells of 256 channels. Projections of all cells are moved to
  the tokens' side, (x W) q = x (W q), which costs n * 8T instead of n * 128 products a channel and makes no map.
- A drawn prompt is a map of 16 channels times one matrix (`PromptEncoder.dense_prompt`); the picture's 256 channels
  stay shared between the prompts until the first round ends.
- Transposed convolutions with stride = kernel are products per cell; only the logits are put into picture order.

Legend: P prompts, T tokens, n cells, H = 8 heads of 16 channels. Equations: Segment Anything, arXiv 2304.02643, app. A.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.prompt_decoder import N_HEADS, Attention, MaskDecoder, TwoWayBlock


@dataclass(frozen=True)
class Cells:
    """A picture's cells as every prompt sees them: `shared` + `drawn` @ `lift`.

    shared: (1 or P, n, 256). placed: shared + positions, made once because every look at the cells begins with it.
    drawn: (P, n, 16) and lift (16, 256), or None.
    """

    shared: Tensor
    placed: Tensor
    drawn: Tensor | None = None
    lift: Tensor | None = None

    def scores(self, rows: Tensor) -> Tensor:
        """Products (P, 8T, n) of token rows (P, 8T, 256) with cells and their positions."""
        scores = rows @ self.placed.transpose(1, 2)
        if self.drawn is None or self.lift is None:
            return scores
        return scores + (rows @ self.lift.T) @ self.drawn.transpose(1, 2)

    def cell_scores(self, rows: Tensor) -> Tensor:
        """The same products as (P, n, 8T)."""
        columns = rows.transpose(1, 2)
        scores = self.placed @ columns
        if self.drawn is None or self.lift is None:
            return scores
        return scores + self.drawn @ (self.lift @ columns)

    def mean(self, weights: Tensor) -> Tensor:
        """Weighted sums (P, 8T, 256) of the cells, weights (P, 8T, n)."""
        seen = weights @ self.shared
        if self.drawn is None or self.lift is None:
            return seen
        return seen + (weights @ self.drawn) @ self.lift

    def plus(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Cells (P, n, 256) plus weights (P, n, 8T) @ rows (P, 8T, 256)."""
        added = self.shared + weights @ rows
        if self.drawn is None or self.lift is None:
            return added
        return added + self.drawn @ self.lift


def point_codes(frequencies: Tensor, points: Sequence[tuple[Tensor, Tensor]], size_px: Tensor) -> Tensor:
    """`RandomPositionEncoding` of K points x, y (P, 1) in pixels of a square frame: (P, K, 256).

    2 pi (2 (x + 0.5) / size - 1) G with everything but x on one side, and no matrix product: this is the form in which
    OpenVINO keeps the whole angle in fp32 where the rest is bf16 (`edgekd.deploy.openvino_build`).
    """
    per_px = frequencies * (4 * math.pi) / size_px
    first = per_px.sum(dim=0) / 2 - frequencies.sum(dim=0) * (2 * math.pi)
    angles = [x * per_px[0] + y * per_px[1] + first for x, y in points]
    return torch.stack([torch.cat([angle.sin(), angle.cos()], dim=-1) for angle in angles], dim=1)


def token_looks_at_cells(attention: Attention, queries: Tensor, cells: Cells) -> Tensor:
    """`attention(queries, cells + positions, cells)`: tokens (P, T, 256) to (P, T, 256).

    The key's bias adds the same to all scores of a query, so softmax drops it; weights sum to 1, so the value's bias
    is added once.
    """
    q = _heads(attention.q_proj(queries)) / math.sqrt(_width(attention))
    rows = (q @ _split(attention.k_proj.weight)).flatten(1, 2)
    weights = cells.scores(rows).softmax(dim=-1)
    seen = cells.mean(weights).unflatten(1, (N_HEADS, -1)) @ _split(attention.v_proj.weight).transpose(1, 2)
    out: Tensor = attention.out_proj(seen.transpose(1, 2).flatten(2) + attention.v_proj.bias)
    return out


def cells_look_at_tokens(attention: Attention, cells: Cells, keys: Tensor, values: Tensor) -> Tensor:
    """`cells + attention(cells + positions, keys, values)`: (P, n, 256) from keys and values (P, T, 256)."""
    k = _heads(attention.k_proj(keys)) / math.sqrt(_width(attention))
    rows = (k @ _split(attention.q_proj.weight)).flatten(1, 2)
    bias = (k @ attention.q_proj.bias.unflatten(0, (N_HEADS, -1, 1))).flatten(1).unsqueeze(1)
    scores = cells.cell_scores(rows) + bias
    weights = scores.unflatten(-1, (N_HEADS, -1)).softmax(dim=-1).flatten(2)
    v = _heads(attention.v_proj(values)) @ _split(attention.out_proj.weight.T)
    return cells.plus(weights, v.flatten(1, 2)) + attention.out_proj.bias


def two_way(decoder: MaskDecoder, cells: Cells, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
    """`TwoWayTransformer` on cells with positions (1, n, 256): tokens (P, T, 256) and cells (P, n, 256)."""
    transformer = decoder.transformer
    tokens = prompt
    for block in transformer.layers:
        tokens, updated = _round(block, tokens, cells, prompt)
        cells = Cells(updated, updated + positions)
    seen = token_looks_at_cells(transformer.final_attn_token_to_image, tokens + prompt, cells)
    return transformer.norm_final_attn(tokens + seen), cells.shared


def _round(block: TwoWayBlock, tokens: Tensor, cells: Cells, prompt: Tensor) -> tuple[Tensor, Tensor]:
    tokens = block.attend_to_tokens(tokens, prompt)
    tokens = block.norm2(tokens + token_looks_at_cells(block.cross_attn_token_to_image, tokens + prompt, cells))
    tokens = block.widen(tokens)
    updated = cells_look_at_tokens(block.cross_attn_image_to_token, cells, tokens + prompt, tokens)
    normed: Tensor = block.norm4(updated)
    return tokens, normed


def upscaled_logits(decoder: MaskDecoder, cells: Tensor, vector: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mask logits (P, 4h, 4w) of cells (P, h*w, 256) and one mask vector (P, 32) each.

    `output_upscaling` followed by the product with the vector, cell by cell.
    """
    first, norm, _, second, _ = decoder.output_upscaling
    x = _per_cell(first, cells)  # (P, n, 4, 64): the four sub-cells
    x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
    x = F.gelu(_per_cell(second, x))  # (P, n, 4, 4, 32)
    logits = x.flatten(1, 3) @ vector.unsqueeze(-1)
    height, width = grid
    parts = logits.reshape(-1, height, width, 2, 2, 2, 2)  # cell y x, sub-cell y x, sub-sub-cell y x
    return parts.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, 4 * height, 4 * width)


def _per_cell(convolution: nn.ConvTranspose2d, cells: Tensor) -> Tensor:
    # (.., in) to (.., 4, out): a transposed convolution with kernel 2 and stride 2 touches no neighbour.
    weight = convolution.weight.permute(2, 3, 1, 0).flatten(0, 2)
    assert convolution.bias is not None
    return F.linear(cells, weight, torch.cat([convolution.bias] * 4)).unflatten(-1, (4, -1))


def _width(attention: Attention) -> int:
    channels: int = attention.q_proj.out_features
    return channels // N_HEADS


def _heads(x: Tensor) -> Tensor:
    return x.unflatten(-1, (N_HEADS, -1)).transpose(1, 2)


def _split(weight: Tensor) -> Tensor:
    # (128, 256) to (8, 16, 256).
    return weight.unflatten(0, (N_HEADS, -1))
