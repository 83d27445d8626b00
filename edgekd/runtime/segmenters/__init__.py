"""One way to a mask behind one small interface; one file per kind of bundle.

A picture and what was found in it go in, one mask per box comes out. Nothing outside this folder asks which kind a
bundle is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from edgekd.bundle import Manifest
from edgekd.graphs import StageName
from edgekd.runtime.detect import Found
from edgekd.runtime.engines import Engine
from edgekd.runtime.pictures import Pictures
from edgekd.runtime.segment import MaskOptions
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.types import Masks, UInt8Array


class Segmenter(Protocol):
    """The part of a chain that makes masks.

    Attributes:
        takes_boxes: it can segment boxes that did not come from the bundle's own detector.
        laps_per_box: names of its laps on the stopwatch whose time grows with the number of boxes.
    """

    takes_boxes: bool
    laps_per_box: tuple[str, ...]

    def start(self, watch: Stopwatch) -> None:
        """Queue what needs the picture at hand and no boxes, where the GPU can do it beside the detector."""

    def __call__(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        """Segment every box of `found`; there is at least one.

        Args:
            picture: (H, W, 3) uint8 BGR, the one that the chain's pictures took last.
            found: the boxes, and what the detector said of them.
            options: threshold and clean-up.
            watch: takes a lap after every step.
        """


def open_segmenter(manifest: Manifest, engines: Mapping[StageName, Engine], pictures: Pictures) -> Segmenter:
    """Return the segmenter of a bundle on the open engines of its stages, with inputs made by `pictures`."""
    from edgekd.runtime.segmenters.crop import CropSegmenter
    from edgekd.runtime.segmenters.sam import SamSegmenter
    from edgekd.runtime.segmenters.yolo_seg import YoloSegSegmenter

    pipeline, buckets = manifest.pipeline, manifest.box_buckets
    if pipeline.encoder_input is not None:
        return SamSegmenter((engines["encoder"], engines["decoder"]), pipeline.encoder_input, buckets, pictures)
    if pipeline.crop is not None:
        return CropSegmenter(engines["segmenter"], pipeline.crop, buckets, pictures)
    return YoloSegSegmenter()
