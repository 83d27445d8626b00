"""The kind `sam`: the picture is embedded once, then every box prompts the decoder.

picture -> encoder -> embeddings -+-> decoder -> low-resolution logits -> masks
boxes ----------------------------'
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekd.graphs import IMAGE, IMAGE_EMBEDDINGS
from edgekd.model_set import ImageInput
from edgekd.runtime.detect import Found
from edgekd.runtime.engines import Engine
from edgekd.runtime.preprocess import preprocess
from edgekd.runtime.segment import MaskOptions, decode_masks, masks_from_logits
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import Float32Array, Masks, UInt8Array


class SamSegmenter:
    """Encoder and decoder of Segment Anything's form, such as TinySAM; see `edgekd.runtime.segmenters.Segmenter`."""

    takes_boxes = True
    laps_per_box: tuple[str, ...] = ("decoder", "mask_postprocess")

    def __init__(self, encoder: Engine, decoder: Engine, encoder_input: ImageInput, buckets: Sequence[int]) -> None:
        self._encoder, self._decoder = encoder, decoder
        self._input, self._buckets = encoder_input, tuple(buckets)

    def __call__(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        """Segment every box of `found`."""
        blob, placement = preprocess(picture, self._input)
        watch.lap("encoder_preprocess")
        embeddings = self._encoder.infer_one({IMAGE: blob}, IMAGE_EMBEDDINGS)
        watch.lap("encoder")
        prompts = placement.to_input(found.detections.xyxy)
        low_res, iou = decode_masks(self._decoder, embeddings, prompts, self._buckets)
        watch.lap("decoder")
        masks = masks_from_logits(low_res, iou, placement, options)
        watch.lap("mask_postprocess")
        return masks

    def embed(self, picture: UInt8Array) -> Float32Array:
        """Return a copy of the image embeddings (1, 256, h, w) float32 of a picture."""
        blob, _ = preprocess(picture, self._input)
        return np.array(self._encoder.infer({IMAGE: blob})[IMAGE_EMBEDDINGS], np.float32)
