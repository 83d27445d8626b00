"""The chain: a picture in, boxes and masks out, with the milliseconds of every stage.

picture -> detector -> boxes -> segmenter of the bundle's kind -> masks
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np

from edgekd.bundle import Manifest, read_manifest, settled
from edgekd.errors import InputError
from edgekd.graphs import IMAGES, StageName
from edgekd.runtime.detect import DetectOptions, Found, detect
from edgekd.runtime.engines import Engine, clone_engines, close_engines, open_engines, start
from edgekd.runtime.pictures import Pictures, open_pictures
from edgekd.runtime.preprocess import check_picture
from edgekd.runtime.segment import MaskOptions, empty_masks
from edgekd.runtime.segmenters import Segmenter, open_segmenter
from edgekd.runtime.segmenters.sam import SamSegmenter
from edgekd.runtime.stopwatch import Stopwatch
from edgekd.runtime.target import check_machine
from edgekd.types import ChainResult, Detections, Float32Array, Int32Array, Masks, UInt8Array

MAX_GIVEN_BOXES = 4096
"""As many as the C library takes in one run."""


@dataclass(frozen=True)
class ChainOptions:
    """What the chain keeps; see the two parts. Without `masks` the detector runs alone and every mask is empty."""

    detect: DetectOptions = field(default_factory=DetectOptions)
    mask: MaskOptions = field(default_factory=MaskOptions)
    masks: bool = True


class Chain:
    """An open bundle. One chain serves one thread; give each further thread its own `clone()`.

    Use it as a context manager, or call `close()`.
    """

    def __init__(self, manifest: Manifest, engines: Mapping[StageName, Engine]) -> None:
        self.manifest = manifest
        self._engines = dict(engines)
        self._pictures = open_pictures(self._engines)
        self._segmenter = open_segmenter(manifest, self._engines, self._pictures)
        self._in_use = threading.Lock()

    @property
    def pictures(self) -> Pictures:
        """Where the networks' inputs are made, and why on the host where a GPU could."""
        return self._pictures

    @property
    def segmenter(self) -> Segmenter:
        """The part that makes masks: what it can take, and which of its steps cost time per box."""
        return self._segmenter

    @classmethod
    def open(cls, folder: str | Path, n_threads: int | None = None, public_key: str | Path | None = None) -> Chain:
        """Open a bundle after checking its manifest, its target and the hashes of its files.

        Args:
            folder: what `edgekd build-engine` wrote.
            n_threads: CPU threads a network may use; None leaves the choice to the backend.
            public_key: whose signature the bundle must carry, as for `edgekd.read_manifest`; None asks for none.

        Raises:
            BundleError: the bundle is missing, damaged, of a newer format, or not signed as asked for.
            BundleMismatch: it was built for another machine.
            BackendUnavailable: its backend is not installed.
        """
        folder = settled(Path(folder))
        manifest = read_manifest(folder, public_key)
        check_machine(folder, manifest)
        return cls(manifest, open_engines(manifest.backend, manifest.stages, folder, n_threads))

    def clone(self) -> Chain:
        """Return a chain that shares the weights with this one, for another thread."""
        self._check_open()
        return Chain(self.manifest, clone_engines(self._engines))

    def close(self) -> None:
        """Give the engines' memory back; a closed chain refuses to be called."""
        with self._in_use:
            self._pictures.close()
            close_engines(self._engines)
            self._engines.clear()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __call__(
        self,
        picture: UInt8Array,
        options: ChainOptions | None = None,
        boxes: Float32Array | None = None,
        class_id: Int32Array | None = None,
    ) -> ChainResult:
        """Find objects and their masks.

        Args:
            picture: (H, W, 3) uint8 BGR, as OpenCV and `edgekd.read_picture` give it.
            options: thresholds; the defaults when None.
            boxes: (n, 4) xyxy in picture pixels to segment instead of the detector's, at most 4,096; they are clipped
                to the picture, as the detector's are, and each must touch it.
            class_id: (n,) the class of each of `boxes`, an index into the bundle's class names; None is class 0.

        Raises:
            InputError: the picture, the boxes or their classes have another form, the bundle's kind takes no boxes, or
                the chain is closed or at work in another thread.
        """
        check_picture(picture)
        options = options or ChainOptions()
        with self._alone():
            watch = Stopwatch()
            self._take(picture, watch)
            if boxes is not None:
                found = self._given(boxes, class_id, picture)
            elif class_id is not None:
                raise InputError("class_id was given without boxes, expected both, or neither")
            else:
                found = self._detect(options, watch)
            if options.masks:
                masks = self._segment(picture, found, options.mask, watch)
            else:
                masks = empty_masks(picture.shape[:2], len(found.detections))
            return ChainResult(found.detections, masks, self.manifest.pipeline.class_names, watch.stop())

    def detect(self, picture: UInt8Array, options: DetectOptions | None = None) -> Detections:
        """Run the detector alone; arguments and errors as for a call."""
        check_picture(picture)
        with self._alone():
            watch = Stopwatch()
            self._take(picture, watch)
            return self._detect(ChainOptions(options or DetectOptions(), masks=False), watch).detections

    def warm_up(self, *sizes_px: tuple[int, int]) -> float:
        """Run every network once on a grey picture of each size, so that the first picture finds them compiled.

        Args:
            sizes_px: (height, width) of pictures to come; without one, a picture that fills the detector's input.

        Returns:
            Milliseconds that it took.
        """
        spec, watch = self.manifest.pipeline.detector_input, Stopwatch()
        for height, width in sizes_px or ((spec.height_px, spec.width_px),):
            picture = np.full((height, width, 3), 114, np.uint8)
            self.detect(picture)
            if self._segmenter.takes_boxes:
                self(picture, boxes=np.array([[width / 4, height / 4, width * 3 / 4, height * 3 / 4]], np.float32))
        return watch.stop()["total"]

    def embed(self, picture: UInt8Array) -> Float32Array:
        """Return the image embeddings (1, 256, h, w) float32 of a picture, in memory of their own.

        Raises:
            InputError: the bundle is of another kind than `sam`, or as for a call.
        """
        check_picture(picture)
        with self._alone():
            if not isinstance(self._segmenter, SamSegmenter):
                raise InputError(
                    f"a bundle of the kind {self.manifest.kind} has no image embeddings, expected one of the kind sam"
                )
            self._pictures.take(picture)
            return self._segmenter.embed()

    def engine_times_ms(self) -> dict[str, Mapping[str, float]]:
        """Return what each engine says of its last run: `h2d`, `gpu_compute`, `d2h` on a GPU, `compute` on a CPU."""
        return {name: engine.times_ms for name, engine in self._engines.items() if engine.times_ms}

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a call on a closed chain, and one while another thread is inside."""
        if not self._in_use.acquire(blocking=False):
            raise InputError("the chain is at work in another thread, expected one thread; give each its own clone()")
        try:
            self._check_open()
            yield
        finally:
            self._in_use.release()

    def _check_open(self) -> None:
        if not self._engines:
            raise InputError("the chain is closed, expected an open one; open the bundle again with edgekd.load")

    def _given(self, boxes: Float32Array, class_id: Int32Array | None, picture: UInt8Array) -> Found:
        if not self._segmenter.takes_boxes:
            raise InputError(
                f"boxes were given to a bundle of the kind {self.manifest.kind}, which masks only its own detector's; "
                "expected no boxes, or a bundle of the kind sam or crop"
            )
        detections = Detections.from_boxes(clipped_boxes(boxes, picture.shape[:2]))
        if class_id is None:
            return Found(detections)
        ids, n_classes = np.asarray(class_id), len(self.manifest.pipeline.class_names)
        if ids.shape != (len(detections),) or ids.dtype.kind not in "iu" or ((ids < 0) | (ids >= n_classes)).any():
            raise InputError(
                f"class_id has shape {ids.shape} and dtype {ids.dtype}, expected one whole number per box, "
                f"from 0 to {n_classes - 1}"
            )
        return Found(replace(detections, class_id=ids.astype(np.int32)))

    def _take(self, picture: UInt8Array, watch: Stopwatch) -> None:
        self._pictures.take(picture)
        if self._pictures.on_device:
            watch.lap("upload")

    def _detect(self, options: ChainOptions, watch: Stopwatch) -> Found:
        """Find objects; on a GPU what the segmenter does with the picture alone runs beside the detector."""
        pipeline, detector = self.manifest.pipeline, self._engines["detector"]
        blob, placement = self._pictures.letterbox(pipeline.detector_input, detector, IMAGES)
        watch.lap("detector_preprocess")
        finish = start(detector, {IMAGES: blob})
        if options.masks:
            self._segmenter.start(watch)
        outputs = finish()
        watch.lap("detector")
        most = min(options.detect.max_boxes, self.manifest.max_boxes)
        found = detect(outputs, pipeline.head, placement, replace(options.detect, max_boxes=most))
        watch.lap("detector_postprocess")
        return found

    def _segment(self, picture: UInt8Array, found: Found, options: MaskOptions, watch: Stopwatch) -> Masks:
        if not len(found.detections):
            return empty_masks(picture.shape[:2])
        return self._segmenter(picture, found, options, watch)


def clipped_boxes(boxes: Float32Array, picture_px: tuple[int, int]) -> Float32Array:
    """Check boxes that a user gave, and clip them to a picture of (height, width).

    Raises:
        InputError: not (n, 4) finite numbers, more than `MAX_GIVEN_BOXES`, an inverted box, or one that lies outside.
    """
    array = np.asarray(boxes, np.float32)
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise InputError(f"boxes has shape {array.shape}, expected (n, 4) finite numbers: left, top, right, bottom")
    if len(array) > MAX_GIVEN_BOXES:
        raise InputError(f"boxes has {len(array)} rows, expected at most {MAX_GIVEN_BOXES} per call")
    height, width = picture_px
    left, top, right, bottom = array.T
    for words, wrong in (
        ("is inverted, expected left <= right and top <= bottom", (right < left) | (bottom < top)),
        (
            f"lies outside the picture of {width}x{height} px, expected one that touches it",
            (left > width) | (top > height) | (right < 0) | (bottom < 0),
        ),
    ):
        if wrong.any():
            row = int(wrong.argmax())
            numbers = ", ".join(f"{value:g}" for value in array[row])
            raise InputError(f"box {row} of boxes ({numbers}) {words}")
    return np.asarray(np.clip(array, 0, np.array([width, height] * 2, np.float32)), np.float32)
