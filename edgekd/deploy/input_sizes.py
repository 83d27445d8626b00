"""The input sizes of a bundle: a model set goes in, its pipeline with sizes and every stage's input shapes come out.

A square input wastes a third of the work on a 3:2 picture. A CPU network with open sizes therefore also takes a few
wide and tall ones; the runtime feeds the smallest that holds the picture at the scale of the full one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.graphs import (
    BOXES,
    EMBEDDING_CHANNELS,
    EMBEDDING_STRIDE_PX,
    IMAGE,
    IMAGE_EMBEDDINGS,
    IMAGES,
    SIDE_MULTIPLE_PX,
    StageName,
)
from edgekd.model_set import ImageInput, ModelSet, OnnxStage, Pipeline, TensorSpec

ASPECTS = (7 / 16, 9 / 16, 16 / 25, 2 / 3, 3 / 4, 4 / 5, 7 / 8)
"""Short side by long side that hold 21:9, 16:9, 16:10, 3:2, 4:3, 5:4 and nearly square pictures.

16:10 gets a little more than it needs: at 1024 px that is 42 rows of cells, three windows of TinyViT, and faster.
"""

StageShapes = dict[StageName, dict[str, tuple[int, ...]]]
Size = tuple[int, int]


@dataclass(frozen=True)
class Shapes:
    """The input shapes of a bundle: stage -> input name -> shape.

    Attributes:
        full: at the full size; -1 is the number of boxes, left open.
        built: as the engine is built; -1 is also a side that has more than one size.
    """

    full: StageShapes
    built: StageShapes


def sized(model_set: ModelSet, detector_px: Size | None, encoder_px: Size | None, one_size: bool) -> Pipeline:
    """Return the pipeline with the input sizes of a bundle.

    Args:
        model_set: what is built; a graph whose sides are fixed, such as a calibrated one, has that one size.
        detector_px, encoder_px: full (height, width); None keeps what the models were exported for.
        one_size: leave no smaller sizes.
    """
    pipeline, stages = model_set.pipeline, model_set.stages
    detector = _with_size(pipeline.detector_input, detector_px, one_size or _is_fixed(stages["detector"]))
    encoder = _with_size(pipeline.encoder_input, encoder_px, one_size or _is_fixed(stages["encoder"]))
    return pipeline.model_copy(update={"detector_input": detector, "encoder_input": encoder})


def _is_fixed(stage: OnnxStage) -> bool:
    return any(isinstance(size, int) for size in stage.inputs[0].shape[2:])


def _with_size(spec: ImageInput, size: Size | None, one_size: bool) -> ImageInput:
    height, width = size or (spec.height_px, spec.width_px)
    smaller = () if one_size else smaller_sizes(height, width)
    return spec.model_copy(update={"height_px": height, "width_px": width, "smaller_sizes_px": smaller})


def smaller_sizes(height_px: int, width_px: int) -> tuple[Size, ...]:
    """Return the (height, width) of wide and tall inputs within a square one, for pictures of common cameras.

    A size that is not square was chosen for its pictures and has none. Few sizes, because each is compiled when its
    first picture comes, and held in memory. OpenVINO engines keep the last used.
    """
    if height_px != width_px:
        return ()
    short = {math.ceil(width_px * ratio / SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX for ratio in ASPECTS} - {width_px}
    return tuple(size for side in sorted(short) for size in ((side, width_px), (width_px, side)))


def shapes_of(pipeline: Pipeline) -> Shapes:
    """Return the shapes of every stage's inputs."""
    specs = pipeline.detector_input, pipeline.encoder_input
    full = [(spec.height_px, spec.width_px) for spec in specs]
    built = [(-1, -1) if spec.smaller_sizes_px else size for spec, size in zip(specs, full, strict=True)]
    return Shapes(_shapes_at(*full), _shapes_at(*built))


def _shapes_at(detector_px: Size, encoder_px: Size) -> StageShapes:
    rows, columns = (side if side < 0 else side // EMBEDDING_STRIDE_PX for side in encoder_px)
    return {
        "detector": {IMAGES: (1, 3, *detector_px)},
        "encoder": {IMAGE: (1, 3, *encoder_px)},
        "decoder": {IMAGE_EMBEDDINGS: (1, EMBEDDING_CHANNELS, rows, columns), BOXES: (-1, 4)},
    }


def opened(shape: tuple[int, ...]) -> tuple[int | str, ...]:
    """Name the open number of boxes, as an ONNX graph does."""
    return tuple("n_boxes" if size == -1 else size for size in shape)


def named_shape(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """Return the spec with the sizes that were built; an axis left open keeps its name."""
    axes = zip(spec.shape, shape, strict=True)
    return spec.model_copy(update={"shape": tuple(name if size == -1 else size for name, size in axes)})
