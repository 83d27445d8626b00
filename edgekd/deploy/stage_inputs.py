"""What a network sees of calibration pictures: the whole picture, or crops around the boxes that the detector finds.

In: a model set and paths of pictures. Out: the shape of a stage's input and one dictionary of inputs per picture, made
by the runtime's own functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.deploy.build_options import BuildOptions
from edgekd.deploy.candidates import float_graphs, trial_chain
from edgekd.errors import DataError
from edgekd.graphs import CONTRACTS, CROPS, StageName
from edgekd.model_set import ModelSet
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.preprocess import preprocess
from edgekd.runtime.sources import read_picture
from edgekd.runtime.turned_crops import cut_boxes

MAX_CROPS = 16
"""Crops per picture, the most confident boxes first."""

_CONFIDENCE = 0.1
"""Low, so that the boxes of doubtful objects, which the device will see as well, are among the crops."""


@dataclass(frozen=True)
class StageInputs:
    """A stage's first input.

    Attributes:
        models: folder of the set.
        model_set: its description.
        stage: which network.
        pictures: what is fed.
    """

    models: Path
    model_set: ModelSet
    stage: StageName
    pictures: Sequence[Path]

    @property
    def name(self) -> str:
        """The name of the tensor."""
        return CONTRACTS[self.stage].inputs[0]

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Its shape with the sizes that ranges hold for; a string is an axis that stays open."""
        if self.stage == "segmenter":
            return self.model_set.stages["segmenter"].inputs[0].shape
        spec = self.model_set.pipeline.picture_inputs()[self.stage]
        return (1, 3, spec.height_px, spec.width_px)

    def feeds(self, limit: int | None = None) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the input of each picture, up to `limit` pictures; a picture without boxes gives no crops.

        Raises:
            DataError: crops are asked for and the detector finds nothing on any picture.
        """
        pictures = self.pictures[:limit]
        if self.stage != "segmenter":
            spec = self.model_set.pipeline.picture_inputs()[self.stage]
            yield from ({self.name: preprocess(read_picture(path), spec)[0]} for path in pictures)
            return
        n_crops = 0
        for crops in self._crops(pictures):
            n_crops += len(crops)
            yield {CROPS: crops}
        if not n_crops:
            raise DataError(
                f"the detector finds no object on {len(pictures)} calibration pictures, so there are no crops to "
                "measure; give pictures like those that the device will see"
            )

    def _crops(self, pictures: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
        spec = self.model_set.pipeline.crop
        assert spec is not None, "a set with a segmenter describes its crops"
        options = BuildOptions("onnxruntime", "fp32", square=True)
        with trial_chain(self.models, self.model_set, float_graphs(self.models, self.model_set), options) as chain:
            for path in pictures:
                picture = read_picture(path)
                found = chain.detect(picture, DetectOptions(confidence=_CONFIDENCE))[:MAX_CROPS]
                if len(found):
                    yield cut_boxes(picture, found, spec)
