"""The input sizes of a bundle: a model set goes in, its pipeline with sizes and every stage's input shapes come out.

A square input wastes a third of the work on a 3:2 picture. A CPU network with open sizes therefore also takes a few
wide and tall ones; the runtime feeds the smallest that holds the picture at the scale of the full one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from edgekd.graphs import (
    BOXES,
    CROPS,
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
    wanted = {"detector": detector_px, "encoder": encoder_px}
    update = {
        f"{name}_input": _with_size(spec, wanted[name], one_size or _is_fixed(stages[name]))
        for name, spec in pipeline.picture_inputs().items()
    }
    return pipeline.model_copy(update=update)


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
    specs = pipeline.picture_inputs()
    full = {name: (spec.height_px, spec.width_px) for name, spec in specs.items()}
    built = {name: (-1, -1) if spec.smaller_sizes_px else full[name] for name, spec in specs.items()}
    side_px = pipeline.crop.side_px if pipeline.crop else None
    return Shapes(_shapes_at(full, side_px), _shapes_at(built, side_px))


def _shapes_at(sizes: Mapping[StageName, Size], crop_side_px: int | None) -> StageShapes:
    shapes: StageShapes = {"detector": {IMAGES: (1, 3, *sizes["detector"])}}
    if "encoder" in sizes:
        rows, columns = (side if side < 0 else side // EMBEDDING_STRIDE_PX for side in sizes["encoder"])
        shapes["encoder"] = {IMAGE: (1, 3, *sizes["encoder"])}
        shapes["decoder"] = {IMAGE_EMBEDDINGS: (1, EMBEDDING_CHANNELS, rows, columns), BOXES: (-1, 4)}
    if crop_side_px:
        shapes["segmenter"] = {CROPS: (-1, crop_side_px, crop_side_px, 3)}
    return shapes


def opened(shape: tuple[int, ...]) -> tuple[int | str, ...]:
    """Name the open number of boxes, as an ONNX graph does."""
    return tuple("n_boxes" if size == -1 else size for size in shape)


def named_shape(spec: TensorSpec, shape: tuple[int, ...]) -> TensorSpec:
    """Return the spec with the sizes that were built; an axis left open keeps its name."""
    axes = zip(spec.shape, shape, strict=True)
    return spec.model_copy(update={"shape": tuple(name if size == -1 else size for name, size in axes)})
