"""The chain: a picture in, boxes and masks out, with the milliseconds of every stage.

picture -> detector -> boxes -+-> decoder -> masks
        -> encoder -> embeddings -'
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import numpy as np

from edgekd.bundle import Manifest, check_files, read_manifest
from edgekd.errors import InputError
from edgekd.graphs import StageName
from edgekd.runtime.detect import DetectOptions, detect
from edgekd.runtime.engines import Engine, open_engine
from edgekd.runtime.preprocess import check_picture, preprocess
from edgekd.runtime.segment import MaskOptions, decode_masks, empty_masks, masks_from_logits
from edgekd.runtime.target import check_machine
from edgekd.types import ChainResult, Detections, Float32Array, Masks, UInt8Array


@dataclass(frozen=True)
class ChainOptions:
    """What the chain keeps; see the two parts."""

    detect: DetectOptions = field(default_factory=DetectOptions)
    mask: MaskOptions = field(default_factory=MaskOptions)


class _Stopwatch:
    """Milliseconds between laps, by name, in order."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.times_ms[name] = (now - self._last) * 1e3
        self._last = now

    def stop(self) -> Mapping[str, float]:
        self.times_ms["total"] = (time.perf_counter() - self._start) * 1e3
        return self.times_ms


class Chain:
    """An open bundle. One chain serves one thread; give each further thread its own `clone()`.

    Use it as a context manager, or call `close()`.
    """

    def __init__(self, manifest: Manifest, engines: Mapping[StageName, Engine]) -> None:
        self.manifest = manifest
        self._engines = dict(engines)

    @classmethod
    def open(cls, folder: str | Path, n_threads: int | None = None) -> Chain:
        """Open a bundle after checking its manifest, its target and the hashes of its files.

        Args:
            folder: what `edgekd build-engine` wrote.
            n_threads: CPU threads a network may use; None leaves the choice to the backend.

        Raises:
            BundleError: the bundle is missing, damaged, or of a newer format.
            BundleMismatch: it was built for another machine.
            BackendUnavailable: its backend is not installed.
        """
        folder = Path(folder)
        manifest = read_manifest(folder)
        check_machine(folder, manifest)
        check_files(folder, manifest)
        engines = {
            name: open_engine(manifest.backend, stage, folder, n_threads) for name, stage in manifest.stages.items()
        }
        return cls(manifest, engines)

    def clone(self) -> Chain:
        """Return a chain that shares the weights with this one, for another thread."""
        return Chain(self.manifest, {name: engine.clone() for name, engine in self._engines.items()})

    def close(self) -> None:
        """Give the engines' memory back; a closed chain must not be called."""
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __call__(
        self, picture: UInt8Array, options: ChainOptions | None = None, boxes: Float32Array | None = None
    ) -> ChainResult:
        """Find objects and their masks.

        Args:
            picture: (H, W, 3) uint8 BGR, as OpenCV and `edgekd.read_picture` give it.
            options: thresholds; the defaults when None.
            boxes: (n, 4) xyxy in picture pixels to segment instead of the detector's.

        Raises:
            InputError: the picture or the boxes have another form.
        """
        check_picture(picture)
        options = options or ChainOptions()
        watch = _Stopwatch()
        detections = self._given(boxes) if boxes is not None else self._detect(picture, options.detect, watch)
        masks = self._segment(picture, detections, options.mask, watch)
        return ChainResult(detections, masks, self.manifest.pipeline.class_names, watch.stop())

    def detect(self, picture: UInt8Array, options: DetectOptions | None = None) -> Detections:
        """Run the detector alone; arguments and errors as for a call."""
        check_picture(picture)
        return self._detect(picture, options or DetectOptions(), _Stopwatch())

    def embed(self, picture: UInt8Array) -> Float32Array:
        """Return the image embeddings (1, 256, h, w) of a picture, as an array of the caller's own."""
        blob, _ = preprocess(picture, self.manifest.pipeline.encoder_input)
        return np.array(self._engines["encoder"].infer({"image": blob})["image_embeddings"], np.float32)

    def engine_times_ms(self) -> dict[str, Mapping[str, float]]:
        """Return what each engine says of its last run: `h2d`, `gpu_compute`, `d2h` on a GPU, `compute` on a CPU."""
        return {name: engine.times_ms for name, engine in self._engines.items() if engine.times_ms}

    def _given(self, boxes: Float32Array) -> Detections:
        array = np.asarray(boxes, np.float32)
        if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
            raise InputError(f"boxes has shape {array.shape}, expected (n, 4) finite numbers: left, top, right, bottom")
        return Detections.from_boxes(array)

    def _detect(self, picture: UInt8Array, options: DetectOptions, watch: _Stopwatch) -> Detections:
        pipeline = self.manifest.pipeline
        blob, placement = preprocess(picture, pipeline.detector_input)
        watch.lap("detector_preprocess")
        outputs = self._engines["detector"].infer({"images": blob})
        watch.lap("detector")
        found = detect(outputs, pipeline.head, placement, options)
        found = found[: self.manifest.max_boxes]
        watch.lap("detector_postprocess")
        return found

    def _segment(self, picture: UInt8Array, found: Detections, options: MaskOptions, watch: _Stopwatch) -> Masks:
        if not len(found):
            return empty_masks(picture.shape[:2])
        blob, placement = preprocess(picture, self.manifest.pipeline.encoder_input)
        watch.lap("encoder_preprocess")
        embeddings = self._engines["encoder"].infer({"image": blob})["image_embeddings"]
        watch.lap("encoder")
        prompts = placement.to_input(found.xyxy)
        low_res, iou = decode_masks(self._engines["decoder"], embeddings, prompts, self.manifest.box_buckets)
        watch.lap("decoder")
        masks = masks_from_logits(low_res, iou, placement, options)
        watch.lap("mask_postprocess")
        return masks
