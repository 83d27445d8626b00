"""TinySAM: one graph for `tinysam.pth`, `mobile_sam.pt` and the checkpoints trained here.

`TinySam` holds the network under the official part names; `load_tinysam` and `save_tinysam` read and write the
official 439-key checkpoint. `PromptDecoder` is the graph that is exported: boxes in, the best of three masks out.

Both graphs export with open sizes (torch.onnx.export, dynamo=True, opset 18): the encoder with height and width any
multiples of 32 (dynamic_shapes 32 * Dim), the decoder with h, w and the number of boxes. Against PyTorch on seven
sizes from 224 x 448 to 1024 x 1024 the encoder differs by 1e-5, the decoder by 5e-7.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgekd.choices import Prompt
from edgekd.errors import ModelError
from edgekd.files import bytes_of, write_bytes
from edgekd.models.decoder_graph import Cells, point_codes, two_way, upscaled_logits
from edgekd.models.prompt_decoder import (
    BOX_LABELS,
    FOREGROUND,
    MASK_CELL_PX,
    PADDING,
    Frame,
    MaskDecoder,
    PromptEncoder,
    cut_to_boxes,
    draw_boxes,
    draw_points,
    mask_logits,
)
from edgekd.models.spectral_adapter import attach_adapters
from edgekd.models.tinyvit import (
    EMBEDDING_CHANNELS,
    STRIDE_PX,
    TinyVitEncoder,
    encoder_key,
    official_encoder_key,
    unused_head,
)

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""RGB, 0..255: an input is (rgb - mean) / std, as in SAM."""

N_OFFICIAL_KEYS = 439
ADAPTED = ("image_encoder.neck",)
"""Where `edgekd finetune --adapter-rank` puts the spectral adapter: on the embeddings."""

_ENCODER = "image_encoder."
_IS_ADAPTER, _IS_ADAPTED = ".adapter.", ".base."


class TinySam(nn.Module):
    """Image encoder, prompt encoder and mask decoder (TinySAM, arXiv 2312.13789; MobileSAM, arXiv 2306.14289).

    draws_prompts: the network was trained with every prompt also drawn as SAM's mask prompt (`draw_boxes`). The
    official checkpoints were not; those trained here from nothing were, and say so in their file.
    """

    def __init__(self, draws_prompts: bool = False) -> None:
        super().__init__()
        self.draws_prompts = draws_prompts
        self.image_encoder = TinyVitEncoder()
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()

    def decode(
        self,
        image_embeddings: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        frame: Frame | None = None,
        mask_input: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """All three masks of every prompt.

        image_embeddings: (1 or P, 256, h, w). point_coords: (P, K, 2) input pixels, point_labels: (P, K) int64, boxes
        as two points labelled 2 and 3. frame: see `Frame`, default the picture itself. mask_input: (P, 1, 4h, 4w)
        logits of an earlier round. Returns low_res_masks (P, 3, 4h, 4w) logits and iou_predictions (P, 3).
        """
        height, width = image_embeddings.shape[-2:]
        frame = frame or Frame.of_grid(height, width, point_coords)
        sparse = self.prompt_encoder.embed_points(point_coords, point_labels, frame)
        positions = self.prompt_encoder.dense_positions(height, width, frame)
        image = image_embeddings + self.prompt_encoder.dense_prompt(mask_input)
        vectors, features, iou = self.mask_decoder(image, positions, sparse)
        return mask_logits(vectors, features), iou


class PromptDecoder(nn.Module):
    """The deployed decoder: one picture's embeddings and N boxes to the N masks the network rates best.

    Exports with a dynamic N: no repeat, one-hot or boolean indexing; the argmax of the predicted IoU picks the mask
    vector before the mask product, so the largest tensor is a third of SAM's. It computes by `decoder_graph`, in half
    the time of `TinySam.decode`, which stays the reference. `box+centre` adds the box centre as a foreground point.
    """

    labels: Tensor

    def __init__(self, model: TinySam, prompt: Prompt = "box") -> None:
        super().__init__()
        self.prompt_encoder, self.mask_decoder = model.prompt_encoder, model.mask_decoder
        self.draws_prompts = model.draws_prompts
        self.with_centre = prompt == "box+centre"
        # A lone box carries no padding token in SAM; points do (forward_points).
        labels = (*BOX_LABELS, FOREGROUND) if self.with_centre else BOX_LABELS
        self.register_buffer("labels", torch.tensor([labels]), persistent=False)

    def forward(self, image_embeddings: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 256, h, w), boxes (N, 4) xyxy input pixels -> low_res_masks (N, 4h, 4w), iou_predictions (N,)."""
        x1, y1, x2, y2 = boxes.split(1, dim=1)
        points = [(x1, y1), (x2, y2)]
        if self.with_centre:
            points.append(((x1 + x2) * 0.5, (y1 + y2) * 0.5))
        frequencies = self.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix
        height, width = image_embeddings.shape[-2:]
        frame = Frame.of_grid(height, width, image_embeddings)
        code = point_codes(frequencies, points, frame.size_px)
        drawn = draw_boxes(boxes, *_mask_size(image_embeddings)) if self.draws_prompts else None
        low_res, iou = self._best(image_embeddings, self.prompt_encoder.with_labels(code, self.labels), drawn)
        # A model that is told its box by drawing was trained within it and is undefined outside.
        return (cut_to_boxes(low_res, boxes) if self.draws_prompts else low_res), iou

    def forward_points(self, image_embeddings: Tensor, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Same for points (N, K, 2) with labels (N, K); SAM's padding point is appended, since no box is given."""
        n = coords.shape[0]
        coords = torch.cat([coords, coords.new_zeros(n, 1, 2)], dim=1)
        labels = torch.cat([labels, labels.new_full((n, 1), PADDING)], dim=1)
        drawn = draw_points(coords, labels, *_mask_size(image_embeddings)) if self.draws_prompts else None
        height, width = image_embeddings.shape[-2:]
        frame = Frame.of_grid(height, width, image_embeddings)
        return self._best(image_embeddings, self.prompt_encoder.embed_points(coords, labels, frame), drawn)

    def _best(self, image_embeddings: Tensor, sparse: Tensor, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        height, width = image_embeddings.shape[-2:]
        frame = Frame.of_grid(height, width, image_embeddings)
        prompt = self.mask_decoder.with_own_tokens(sparse)
        positions = self.prompt_encoder.dense_positions(height, width, frame).flatten(2).transpose(1, 2)
        tokens, cells = two_way(self.mask_decoder, self._cells(image_embeddings, drawn, positions), positions, prompt)
        vectors, iou = self.mask_decoder.read(tokens)
        best = iou.argmax(dim=1, keepdim=True)
        chosen = vectors.gather(1, best.unsqueeze(-1).expand(-1, 1, vectors.shape[-1])).squeeze(1)
        return upscaled_logits(self.mask_decoder, cells, chosen, (height, width)), iou.gather(1, best).squeeze(1)

    def _cells(self, image_embeddings: Tensor, drawn: Tensor | None, positions: Tensor) -> Cells:
        encoder = self.prompt_encoder
        picture = image_embeddings.flatten(2).transpose(1, 2)
        if drawn is None:
            picture = picture + encoder.no_mask_embed.weight
            return Cells(picture, picture + positions)
        lift = encoder.mask_downscaling[-1]
        strokes = encoder.mask_downscaling[:-1](drawn).flatten(2).transpose(1, 2)
        picture = picture + lift.bias
        return Cells(picture, picture + positions, strokes, lift.weight.flatten(1).T)


def _mask_size(image_embeddings: Tensor) -> tuple[int, int]:
    height, width = image_embeddings.shape[-2:]
    return height * (STRIDE_PX // MASK_CELL_PX), width * (STRIDE_PX // MASK_CELL_PX)


def official_state_dict(model: TinySam) -> dict[str, Tensor]:
    """The 439 tensors of `model` under the names of tinysam.pth; the unused ImageNet head is written neutral.

    A spectral adapter has no official name and is left out; `save_tinysam` keeps it beside these.
    """
    state = {}
    for key, value in model.state_dict().items():
        if _IS_ADAPTER in key:
            continue
        key = key.replace(_IS_ADAPTED, ".")
        is_encoder = key.startswith(_ENCODER)
        name = _ENCODER + official_encoder_key(key.removeprefix(_ENCODER)) if is_encoder else key
        state[name] = value.detach().cpu().clone()
    return state | {_ENCODER + key: value for key, value in unused_head().items()}


def save_tinysam(model: TinySam, path: Path) -> None:
    """Write `model` so that `load_tinysam` and, its tensors being official, other builders of MobileSAM read it."""
    adapter = {key: value for key, value in model.state_dict().items() if _IS_ADAPTER in key}
    content = {"model": official_state_dict(model), "draws_prompts": model.draws_prompts}
    content |= {"adapter": adapter} if adapter else {}
    write_bytes(path, bytes_of(lambda buffer: torch.save(content, buffer)))


def from_official(state: dict[str, Tensor], source: str = "the checkpoint", draws_prompts: bool = False) -> TinySam:
    """A model in eval mode from the 439 official tensors. Raises ModelError when names or shapes differ."""
    model = TinySam(draws_prompts)
    heads = {_ENCODER + key for key in unused_head()}
    renamed = {_own_key(key): value for key, value in state.items() if key not in heads}
    expected = model.state_dict()
    wrong = sorted(renamed.keys() ^ expected.keys())
    wrong += [key for key in expected if key in renamed and renamed[key].shape != expected[key].shape]
    if wrong:
        raise ModelError(
            f"{source} holds another model than TinySAM or MobileSAM ({len(state)} tensors, {len(wrong)} of them "
            f"missing, unknown or of another shape, e.g. {wrong[0]}); pass a tinysam.pth or mobile_sam.pt"
        )
    model.load_state_dict(renamed)
    model.eval()
    return model


def _own_key(official: str) -> str:
    is_encoder = official.startswith(_ENCODER)
    return _ENCODER + encoder_key(official.removeprefix(_ENCODER)) if is_encoder else official


def load_tinysam(path: str | Path) -> TinySam:
    """Read tinysam.pth, mobile_sam.pt or a checkpoint written here; weights only, no code is run.

    Returns the model in eval mode, fp32. Raises ModelError for a missing, damaged or pickled-module file and for
    the checkpoint of another model.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(
            f"{path} does not exist, expected a checkpoint; pass a tinysam.pth, a mobile_sam.pt or a trained best.pt"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as reason:  # zipfile, pickle and torch raise a dozen types; all mean a file that cannot be used
        raise ModelError(
            f"{path} is not a weights-only PyTorch checkpoint ({type(reason).__name__}); "
            "pass a plain state dict such as tinysam.pth or mobile_sam.pt"
        ) from reason
    draws_prompts, adapter = False, None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        draws_prompts = bool(state.get("draws_prompts", False))
        adapter = state.get("adapter")
        state = state["model"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(f"{path} holds {type(state).__name__} instead of tensors by name; pass a state dict")
    tensors = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    model = from_official(tensors, str(path), draws_prompts)
    if adapter is not None:
        rank = len(adapter[f"{ADAPTED[0]}.adapter.down_low.weight"])
        attach_adapters(model, ADAPTED, EMBEDDING_CHANNELS, rank)
        model.load_state_dict(adapter, strict=False)
        model.eval()
    return model
