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
from edgekd.runtime.engines import Engine, Tensor
from edgekd.runtime.pictures import Pictures
from edgekd.runtime.preprocess import Placement
from edgekd.runtime.segment import MaskOptions, decode_masks, masks_from_logits
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import Float32Array, Masks, UInt8Array


class SamSegmenter:
    """Encoder and decoder of Segment Anything's form, such as TinySAM; see `edgekd.runtime.segmenters.Segmenter`."""

    takes_boxes = True
    laps_per_box: tuple[str, ...] = ("decoder", "mask_postprocess")

    def __init__(
        self, networks: tuple[Engine, Engine], encoder_input: ImageInput, buckets: Sequence[int], pictures: Pictures
    ) -> None:
        self._encoder, self._decoder = networks
        self._input, self._buckets, self._pictures = encoder_input, tuple(buckets), pictures
        self._started: tuple[int, Tensor, Placement] | None = None  # with the number of the picture

    def start(self, watch: Stopwatch) -> None:
        """Queue the encoder on a GPU; on a CPU it waits until there is a box."""
        if self._pictures.on_device:
            self._started = self._pictures.number, *self._encode(watch)

    def __call__(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        """Segment every box of `found`."""
        if self._started and self._started[0] == self._pictures.number:
            _, embeddings, placement = self._started
        else:
            embeddings, placement = self._encode(watch)
        prompts = placement.to_input(found.detections.xyxy)
        low_res, iou = decode_masks(self._decoder, embeddings, prompts, self._buckets)
        watch.lap("decoder")
        masks = masks_from_logits(low_res, iou, placement, options)
        watch.lap("mask_postprocess")
        return masks

    def embed(self) -> Float32Array:
        """Return a copy of the image embeddings (1, 256, h, w) float32 of the picture at hand."""
        blob, _ = self._pictures.letterbox(self._input, self._encoder, IMAGE)
        return np.array(self._encoder.infer({IMAGE: blob})[IMAGE_EMBEDDINGS], np.float32)

    def _encode(self, watch: Stopwatch) -> tuple[Tensor, Placement]:
        blob, placement = self._pictures.letterbox(self._input, self._encoder, IMAGE)
        watch.lap("encoder_preprocess")
        embeddings = self._encoder.infer_one({IMAGE: blob}, IMAGE_EMBEDDINGS)
        watch.lap("encoder")
        return embeddings, placement
