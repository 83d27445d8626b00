"""SAM's prompt encoder and mask decoder, written for one picture and many prompts, under the official parameter names.

In: image_embeddings (1 or P, 256, h, w), point_coords (P, K, 2) in input pixels and point_labels (P, K).
Out: low_res_masks (P, 3, 4h, 4w) logits and iou_predictions (P, 3): tokens 1 to 3, as TinySAM is trained and read.

Labels as in SAM: 1 foreground point, 0 background point, 2 and 3 the two corners of a box, -1 padding. A picture keeps
batch 1 through the first image-side projections and is broadcast over the prompts; nothing is repeated.
Equations: Segment Anything, arXiv 2304.02643, appendix A.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.tinyvit import EMBEDDING_CHANNELS, STRIDE_PX, LayerNorm2d

N_MASKS = 3
"""Masks a prompt yields: tokens 1 to 3. Token 0, SAM's single-mask token, is not used by TinySAM."""

N_HEADS = 8
MASK_CELL_PX = 4
"""Input pixels per cell of a mask prompt and of low_res_masks."""

DRAWN_LOGIT = 2.0
"""Value of a drawn prompt inside; its negative is outside."""

POINT_REACH_PX = 8.0
"""A drawn point is a square this far to each side of it."""

BOX_LABELS = (2, 3)
FOREGROUND, PADDING = 1, -1


@dataclass(frozen=True)
class Frame:
    """Where an input lies in the square frame that positions are measured in.

    A whole picture is its own frame: size_px = its longer side, origin 0. A training crop names the frame it was cut
    from, so that the network sees the same positional code as on whole pictures.
    """

    size_px: Tensor  # () or (P,) float: side of the square frame
    origin_px: Tensor  # (2,) or (P, 2) float: x, y of the input's top left corner in the frame

    @staticmethod
    def of_grid(height: int, width: int, like: Tensor) -> Frame:
        """The frame of a whole picture of `height` x `width` embedding cells."""
        # Counted with tensors, so that an exported graph follows the size of its input.
        n_cells = torch.cat([torch.arange(side, device=like.device) for side in (height, width)]).amax(dim=0) + 1
        return Frame((n_cells * STRIDE_PX).to(like.dtype), like.new_zeros(2))


class RandomPositionEncoding(nn.Module):
    """Random Fourier features of positions (Tancik et al., arXiv 2006.10739)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", _frequencies())

    def forward(self, unit_coords: Tensor) -> Tensor:
        """Positions (..., 2) in 0..1 of the frame to codes (..., 256)."""
        phase = (2 * math.pi) * ((2 * unit_coords - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


def _frequencies() -> Tensor:
    # SAM draws them at scale 1, which took millions of pictures to resolve small objects. Scales from 0.5 to 6 let a
    # network that starts from nothing tell neighbouring 16 px cells apart; a loaded checkpoint brings its own matrix.
    n_features = EMBEDDING_CHANNELS // 2
    scales = torch.logspace(math.log10(0.5), math.log10(6.0), n_features)
    return torch.randn(2, n_features, generator=torch.Generator().manual_seed(0)) * scales


class PromptEncoder(nn.Module):
    """Points, boxes and masks to tokens and maps (official names under `prompt_encoder.`)."""

    def __init__(self) -> None:
        super().__init__()
        channels = EMBEDDING_CHANNELS
        self.pe_layer = RandomPositionEncoding()
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, channels) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, 4, 2, stride=2),
            LayerNorm2d(4, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(4, 16, 2, stride=2),
            LayerNorm2d(16, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(16, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def label_table(self) -> Tensor:
        """Embeddings of the labels -1, 0, 1, 2, 3 as rows, (5, 256)."""
        points = [embedding.weight for embedding in self.point_embeddings]
        return torch.cat([self.not_a_point_embed.weight, *points])

    def embed_points(self, point_coords: Tensor, point_labels: Tensor, frame: Frame) -> Tensor:
        """Tokens (P, K, 256) of points (P, K, 2) in input pixels with labels (P, K) from -1 to 3."""
        size_px = frame.size_px.reshape(-1, 1, 1)
        origin_px = frame.origin_px.reshape(-1, 1, 2)
        return self.with_labels(self.pe_layer((point_coords + origin_px + 0.5) / size_px), point_labels)

    def with_labels(self, code: Tensor, point_labels: Tensor) -> Tensor:
        """Positional codes (P, K, 256) become tokens of labels (P, K) from -1 to 3."""
        is_point = (point_labels >= 0).to(code.dtype).unsqueeze(-1)
        return code * is_point + F.embedding(point_labels + 1, self.label_table())

    def dense_positions(self, height: int, width: int, frame: Frame) -> Tensor:
        """Codes (1 or P, 256, h, w) of the cell centres."""
        like = self.pe_layer.positional_encoding_gaussian_matrix
        y_px = (torch.arange(height, device=like.device, dtype=like.dtype) + 0.5) * STRIDE_PX
        x_px = (torch.arange(width, device=like.device, dtype=like.dtype) + 0.5) * STRIDE_PX
        cells_px = torch.stack([x_px.expand(height, width), y_px[:, None].expand(height, width)], dim=-1)
        unit = (cells_px + frame.origin_px.reshape(-1, 1, 1, 2)) / frame.size_px.reshape(-1, 1, 1, 1)
        return self.pe_layer(unit).permute(0, 3, 1, 2)

    def dense_prompt(self, mask_input: Tensor | None) -> Tensor:
        """Map added to the embeddings: of earlier mask logits (P, 1, 4h, 4w), or SAM's constant without any."""
        if mask_input is None:
            return self.no_mask_embed.weight.reshape(1, -1, 1, 1)
        embedded: Tensor = self.mask_downscaling(mask_input)
        return embedded


class Mlp(nn.Module):
    """Linear layers with ReLU between them (official name `layers`)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(a, b) for a, b in zip(widths, widths[1:], strict=False)])

    def forward(self, x: Tensor) -> Tensor:
        """(..., first width) to (..., last width)."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        last: Tensor = self.layers[-1](x)
        return last


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller; either side may have batch 1 and is broadcast."""

    def __init__(self, inner_channels: int) -> None:
        super().__init__()
        self.q_proj = nn.Linear(EMBEDDING_CHANNELS, inner_channels)
        self.k_proj = nn.Linear(EMBEDDING_CHANNELS, inner_channels)
        self.v_proj = nn.Linear(EMBEDDING_CHANNELS, inner_channels)
        self.out_proj = nn.Linear(inner_channels, EMBEDDING_CHANNELS)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(P or 1, n, 256), (P or 1, m, 256) twice -> (P, n, 256)."""
        q, k, v = self._heads(self.q_proj(queries)), self._heads(self.k_proj(keys)), self._heads(self.v_proj(values))
        weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        out: Tensor = self.out_proj((weights @ v).transpose(1, 2).flatten(2))
        return out

    @staticmethod
    def _heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (N_HEADS, x.shape[-1] // N_HEADS)).transpose(1, 2)


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves, then to the picture; the picture attends to the tokens."""

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first
        channels = EMBEDDING_CHANNELS
        self.self_attn = Attention(channels)
        self.cross_attn_token_to_image = Attention(channels // 2)
        self.cross_attn_image_to_token = Attention(channels // 2)
        self.mlp = nn.ModuleDict({"lin1": nn.Linear(channels, 2048), "lin2": nn.Linear(2048, channels)})
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.norm3, self.norm4 = nn.LayerNorm(channels), nn.LayerNorm(channels)

    def forward(self, tokens: Tensor, image: Tensor, prompt: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """One round: tokens (P, t, 256) and image (1 or P, h*w, 256) to both, updated and with batch P."""
        tokens = self.attend_to_tokens(tokens, prompt)
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + prompt, image + positions, image))
        tokens = self.widen(tokens)
        image = self.norm4(image + self.cross_attn_image_to_token(image + positions, tokens + prompt, tokens))
        return tokens, image

    def attend_to_tokens(self, tokens: Tensor, prompt: Tensor) -> Tensor:
        """Tokens (P, t, 256) after they looked at each other; the first round has no residual."""
        if self.is_first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            tokens = tokens + self.self_attn(tokens + prompt, tokens + prompt, tokens)
        normed: Tensor = self.norm1(tokens)
        return normed

    def widen(self, tokens: Tensor) -> Tensor:
        """Tokens (P, t, 256) after their two-layer perceptron."""
        normed: Tensor = self.norm3(tokens + self.mlp["lin2"](F.relu(self.mlp["lin1"](tokens))))
        return normed


class TwoWayTransformer(nn.Module):
    """Two rounds and a last look of the tokens at the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TwoWayBlock(is_first=True), TwoWayBlock(is_first=False)])
        self.final_attn_token_to_image = Attention(EMBEDDING_CHANNELS // 2)
        self.norm_final_attn = nn.LayerNorm(EMBEDDING_CHANNELS)

    def forward(self, image: Tensor, positions: Tensor, prompt: Tensor) -> tuple[Tensor, Tensor]:
        """Maps (1 or P, 256, h, w) and tokens (P, t, 256) to tokens (P, t, 256) and cells (P, h*w, 256)."""
        cells, cell_positions = image.flatten(2).transpose(1, 2), positions.flatten(2).transpose(1, 2)
        tokens = prompt
        for layer in self.layers:
            tokens, cells = layer(tokens, cells, prompt, cell_positions)
        seen = self.final_attn_token_to_image(tokens + prompt, cells + cell_positions, cells)
        return self.norm_final_attn(tokens + seen), cells


class MaskDecoder(nn.Module):
    """SAM's mask decoder (official names under `mask_decoder.`), tokens 1 to 3 only."""

    def __init__(self) -> None:
        super().__init__()
        channels = EMBEDDING_CHANNELS
        self.transformer = TwoWayTransformer()
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(1 + N_MASKS, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4, eps=1e-6),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [Mlp(channels, channels, channels, channels // 8) for _ in range(1 + N_MASKS)]
        )
        self.iou_prediction_head = Mlp(channels, channels, channels, 1 + N_MASKS)

    def forward(self, image: Tensor, positions: Tensor, sparse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Decode the prompts' tokens `sparse` (P, K, 256) against a picture.

        Returns the mask vectors (P, 3, 32), the mask features (P, 32, 4h, 4w), whose product is the mask logits, and
        the iou_predictions (P, 3).
        """
        tokens, cells = self.transformer(image, positions, self.with_own_tokens(sparse))
        features = self.output_upscaling(cells.transpose(1, 2).unflatten(2, image.shape[-2:]))
        vectors, iou = self.read(tokens)
        return vectors, features, iou

    def with_own_tokens(self, sparse: Tensor) -> Tensor:
        """The prompts' tokens (P, K, 256) behind the decoder's own five: (P, 5 + K, 256)."""
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(sparse.shape[0], -1, -1)
        return torch.cat([own, sparse], dim=1)

    def read(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Mask vectors (P, 3, 32) and iou_predictions (P, 3) of the final tokens (P, 5 + K, 256)."""
        heads = list(self.output_hypernetworks_mlps)[1:]
        vectors = torch.stack([head(tokens[:, 2 + i]) for i, head in enumerate(heads)], dim=1)
        return vectors, self.iou_prediction_head(tokens[:, 0])[:, 1:]


def draw_boxes(boxes: Tensor, height: int, width: int) -> Tensor:
    """Draw boxes as mask prompts: (P, 4) xyxy input pixels to (P, 1, height, width), in cells of 4 px.

    A cell holds the share of it that the box covers, from -DRAWN_LOGIT to DRAWN_LOGIT, so edges keep their place
    within a cell. SAM says "here" by positional codes alone, which takes millions of pictures to learn; drawn, even a
    network that starts from nothing knows at once which cells are meant.
    """
    x1, y1, x2, y2 = boxes.to(torch.float32).unsqueeze(-1).unbind(dim=1)
    covered_x = _covered(x1, x2, torch.arange(width, device=boxes.device, dtype=torch.float32) * MASK_CELL_PX)
    covered_y = _covered(y1, y2, torch.arange(height, device=boxes.device, dtype=torch.float32) * MASK_CELL_PX)
    covered = covered_y.unsqueeze(-1) * covered_x.unsqueeze(-2)
    return ((2 * covered - 1) * DRAWN_LOGIT).unsqueeze(1)


def _covered(low: Tensor, high: Tensor, cell: Tensor) -> Tensor:
    # Share of each cell [cell, cell + 4 px] between low and high: (P, 1), (P, 1), (n,) -> (P, n).
    # The cell's own coordinates first: what bf16 rounds after that is small. Added, because OpenVINO rewrites a
    # difference and forgets that it was marked to stay in fp32.
    low_in_cell, high_in_cell = low + (-cell), high + (-cell)
    side = float(MASK_CELL_PX)
    overlap = high_in_cell.clamp(0.0, side) - low_in_cell.clamp(0.0, side)
    return overlap.clamp(min=0.0) / MASK_CELL_PX


def cut_to_boxes(logits: Tensor, boxes: Tensor) -> Tensor:
    """Make logits (P, height, width) of cells of 4 px negative outside boxes (P, 4) xyxy input pixels.

    A logit becomes at most its cell's signed distance to the box's edge in pixels; that bound is linear across the
    edge, so bilinear upsampling puts the mask's edge exactly on the box's.
    """
    height, width = logits.shape[-2:]
    x1, y1, x2, y2 = boxes.to(torch.float32).unsqueeze(-1).unbind(dim=1)
    x = (torch.arange(width, device=boxes.device, dtype=torch.float32) + 0.5) * MASK_CELL_PX
    y = (torch.arange(height, device=boxes.device, dtype=torch.float32) + 0.5) * MASK_CELL_PX
    inside_x, inside_y = torch.minimum(x - x1, x2 - x), torch.minimum(y - y1, y2 - y)
    return torch.minimum(logits, torch.minimum(inside_y.unsqueeze(-1), inside_x.unsqueeze(-2)))


def draw_points(coords: Tensor, labels: Tensor, height: int, width: int) -> Tensor:
    """Draw the foreground points of (P, K, 2) with labels (P, K) as small squares, in the form of `draw_boxes`."""
    squares = torch.cat([coords - POINT_REACH_PX, coords + POINT_REACH_PX], dim=-1)
    drawn = draw_boxes(squares.flatten(0, 1), height, width).unflatten(0, coords.shape[:2])
    is_foreground = (labels == FOREGROUND).reshape(*labels.shape, 1, 1, 1)
    return torch.where(is_foreground, drawn, torch.full_like(drawn, -DRAWN_LOGIT)).amax(dim=1)


def mask_logits(vectors: Tensor, features: Tensor) -> Tensor:
    """Product of mask vectors (P, m, 32) and features (P, 32, H, W): logits (P, m, H, W)."""
    return (vectors @ features.flatten(2)).unflatten(2, features.shape[-2:])
