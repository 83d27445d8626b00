"""Networks become ONNX: PyTorch modules in, a model set out, each graph compared with PyTorch before it is kept.

The graphs keep their sizes open (batch, height and width of the detector and encoder, boxes of the decoder);
`edgekd build-engine` fixes what a backend wants fixed. Names follow Segment Anything; see `edgekd.model_set`.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim

from edgekd.deploy.onnx_edit import half_storage, no_forbidden_operators
from edgekd.errors import ModelError
from edgekd.files import atomic_folder, sha256_of
from edgekd.graphs import (
    ANGLE_LOGITS,
    BOX_LOGITS,
    CLASS_LOGITS,
    IMAGES,
    LOW_RES_MASKS,
    MASK_COEFFICIENTS,
    MASK_PROTOTYPES,
    PREDICTED_IOU,
    Kind,
    StageName,
    is_input_size,
)
from edgekd.model_set import (
    DetectorHead,
    ImageInput,
    ModelSet,
    OnnxStage,
    Pipeline,
    Source,
    TensorSpec,
    listed_files,
    write_model_set,
)
from edgekd.models.encoder_graph import split_projections
from edgekd.models.spectral_adapter import fold_adapters
from edgekd.models.tinysam import PIXEL_MEAN, PIXEL_STD, PromptDecoder, TinySam
from edgekd.models.yolo11n import DetectorGraph, facts_of

OPSET = 18
MAX_ABS_DIFFERENCE = 1e-4
MAX_RELATIVE_DIFFERENCE = 1e-5
"""Share of an output's largest value that is allowed on top. float32 itself needs it: with logits up to 22 and no
AVX-512, PyTorch's YOLO11n is 1.0e-4 from the same network in float64, ONNX Runtime's 1.2e-4."""

_DTYPES: Mapping[int, Literal["float32", "uint8"]] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.UINT8: "uint8",
}
Pair = tuple[NDArray[np.float32], NDArray[np.float32]]
DETECTOR_PAD = (114.0, 114.0, 114.0)
"""Ultralytics' letterbox grey, in picture values."""


@dataclass(frozen=True)
class ExportOptions:
    """What `edgekd export` decides beside the weights.

    Attributes:
        detector_px, encoder_px: (height, width) that the runtime feeds; multiples of 32.
        prompt: the decoder's prompt of a box.
        half_storage: store weights as fp16 (half the file) after the comparison with PyTorch; what the rounding
            changes is measured and recorded too.
    """

    detector_px: tuple[int, int] = (640, 640)
    encoder_px: tuple[int, int] = (1024, 1024)
    prompt: Any = "box"
    half_storage: bool = False


@dataclass(frozen=True)
class Graph:
    """One module ready for export: example inputs, names, and which of their axes stay open."""

    module: nn.Module
    inputs: tuple[torch.Tensor, ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]
    dynamic_shapes: tuple[dict[int, Any], ...]
    layouts: Mapping[str, str]


def export_networks(
    detector: nn.Module,
    segmenter: TinySam | None,
    sources: Mapping[str, Source],
    destination: Path,
    options: ExportOptions,
) -> ModelSet:
    """Write one graph per stage and `models.json` into `destination`, atomically.

    Args:
        detector: from `edgekd.models.yolo11n.load_detector`.
        segmenter: from `edgekd.models.tinysam.load_tinysam`; None for a segment network, which brings its own masks.
        sources: `detector` and `segmenter`: where the weights come from.
        destination: the folder to make or replace.
        options: sizes, prompt and storage.

    Raises:
        ModelError: a size is not a multiple of 32, a graph differs from PyTorch by more than `export_graph` allows, or
            the networks do not go together.
    """
    if (segmenter is None) != (facts_of(detector).n_coefficients > 0):
        found = "a segment network and a segmenter" if segmenter else "a detector that gives boxes alone"
        raise ModelError(
            f"{found} came to be exported, expected a detector with a segmenter or a segment network alone"
        )
    for name, size in (("detector", options.detector_px), ("segmenter", options.encoder_px)):
        if not is_input_size(size):
            raise ModelError(
                f"the {name} size is {size[1]}x{size[0]}, expected sides that are multiples of 32 up to 8192; "
                f"try --{name}-size 640"
            )
    graphs = graphs_of(detector, segmenter, options)
    with atomic_folder(destination, listed_files) as folder:
        stages = {
            name: export_graph(graphs[name], folder / f"{name}.onnx", source_of(name, sources), options.half_storage)
            for name in graphs
        }
        kind: Kind = "sam" if segmenter else "yolo-seg"
        model_set = ModelSet(kind=kind, pipeline=pipeline_of(detector, kind, options), stages=stages)
        write_model_set(folder, model_set)
    return model_set


def source_of(stage: StageName, sources: Mapping[str, Source]) -> Source:
    """Return the source of a stage: encoder and decoder come from the segmenter."""
    return sources["detector" if stage == "detector" else "segmenter"]


def graphs_of(detector: nn.Module, segmenter: TinySam | None, options: ExportOptions) -> dict[StageName, Graph]:
    """Wrap the networks as the graphs of a model set, with example inputs; spectral adapters are folded."""
    graphs: dict[StageName, Graph] = {"detector": detector_graph(detector, options)}
    if segmenter is not None:
        graphs |= _sam_graphs(segmenter, options)
    return graphs


def detector_graph(detector: nn.Module, options: ExportOptions) -> Graph:
    """Wrap a detector of upright or turned boxes, or one with masks of its own, with an example picture."""
    picture = torch.rand(2, 3, *options.detector_px, generator=torch.Generator().manual_seed(0))
    batch = Dim("batch", min=1, max=64)
    rows, columns = Dim("rows", min=2, max=256), Dim("columns", min=2, max=256)
    layouts = {BOX_LOGITS: "N 4*reg_max A", CLASS_LOGITS: "N n_classes A"}
    if facts_of(detector).angle:
        layouts |= {ANGLE_LOGITS: "N 1 A"}
    if facts_of(detector).n_coefficients:
        layouts |= {MASK_COEFFICIENTS: "N k A", MASK_PROTOTYPES: "NCHW"}
    return Graph(
        DetectorGraph(detector),
        (picture,),
        (IMAGES,),
        tuple(layouts),
        ({0: batch, 2: 32 * rows, 3: 32 * columns},),
        {IMAGES: "NCHW RGB 0..1", **layouts},
    )


def _sam_graphs(segmenter: TinySam, options: ExportOptions) -> dict[StageName, Graph]:
    encoder = copy.deepcopy(segmenter.image_encoder).eval()
    fold_adapters(encoder)
    split_projections(encoder)
    height, width = options.encoder_px
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(1, 3, height, width, generator=generator)
    embeddings = torch.randn(1, 256, height // 16, width // 16, generator=generator)
    corner = torch.rand(3, 2, generator=generator) * torch.tensor([width / 2, height / 2])
    boxes = torch.cat([corner, corner + torch.tensor([width / 4, height / 4])], 1)
    rows, columns = Dim("rows", min=2, max=256), Dim("columns", min=2, max=256)
    grid_rows, grid_columns = Dim("grid_rows", min=2, max=512), Dim("grid_columns", min=2, max=512)
    return {
        "encoder": Graph(
            encoder,
            (normal,),
            ("image",),
            ("image_embeddings",),
            ({2: 32 * rows, 3: 32 * columns},),
            {"image": "NCHW RGB normalised", "image_embeddings": "NCHW"},
        ),
        "decoder": Graph(
            PromptDecoder(segmenter, options.prompt).eval(),
            (embeddings, boxes),
            ("image_embeddings", "boxes"),
            (LOW_RES_MASKS, PREDICTED_IOU),
            ({2: grid_rows, 3: grid_columns}, {0: Dim("n_boxes", min=1, max=1024)}),
            {"image_embeddings": "NCHW", "boxes": "N xyxy", LOW_RES_MASKS: "NHW logits", PREDICTED_IOU: "N"},
        ),
    }


def export_graph(graph: Graph, path: Path, source: Source, half: bool) -> OnnxStage:
    """Export one graph, compare it with PyTorch, and describe it.

    Raises:
        ModelError: the graph holds an operator that TensorRT cannot build, or an output differs by more than 1e-4 plus
            1e-5 of its largest value.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            graph.module,
            graph.inputs,
            input_names=list(graph.input_names),
            output_names=list(graph.output_names),
            opset_version=OPSET,
            dynamic_shapes=graph.dynamic_shapes,
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    no_forbidden_operators(model, path.stem)
    onnx.save(model, path)
    outputs = both_outputs(graph, path)
    check_outputs(outputs, path.stem)
    if half:
        half_storage(model)
        onnx.save(model, path)
    return OnnxStage(
        file=path.name,
        sha256=sha256_of(path),
        inputs=_specs(model.graph.input, graph.layouts),
        outputs=_specs(model.graph.output, graph.layouts),
        opset=OPSET,
        max_abs_difference=_largest(outputs),
        half_storage_difference=_largest(both_outputs(graph, path)) if half else None,
        source=source,
    )


def both_outputs(graph: Graph, path: Path) -> dict[str, Pair]:
    """Return each output by its name, as ONNX Runtime and as PyTorch compute it from the example inputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {name: value.numpy() for name, value in zip(graph.input_names, graph.inputs, strict=True)}
    found = session.run(list(graph.output_names), feeds)
    with torch.no_grad():
        expected = graph.module(*graph.inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    pairs = zip(graph.output_names, found, expected, strict=True)
    return {name: (array, tensor.numpy()) for name, array, tensor in pairs}


def check_outputs(outputs: Mapping[str, Pair], stage: str) -> None:
    """Compare what `both_outputs` returned for a stage.

    Raises:
        ModelError: an output differs by more than 1e-4 plus 1e-5 of its largest value, or is not a number.
    """
    for name, (found, expected) in outputs.items():
        difference = float(np.abs(found - expected).max())
        limit = MAX_ABS_DIFFERENCE + MAX_RELATIVE_DIFFERENCE * float(np.abs(expected).max())
        if not difference <= limit:  # NaN as well
            raise ModelError(
                f"{name} of the exported {stage} differs from PyTorch by {difference:.1e}, expected at most "
                f"{limit:.1e}; report it with the checkpoint's name"
            )


def _largest(outputs: Mapping[str, Pair]) -> float:
    return float(np.max([np.abs(found - expected).max() for found, expected in outputs.values()]))


def _specs(values: Any, layouts: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    specs = []
    for value in values:
        shape = tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        dtype = _DTYPES[value.type.tensor_type.elem_type]
        specs.append(TensorSpec(name=value.name, shape=shape, dtype=dtype, layout=layouts[value.name]))
    return tuple(specs)


def pipeline_of(detector: nn.Module, kind: Kind, options: ExportOptions) -> Pipeline:
    """Describe how a detector's pictures are made and its maps read, and for `sam` the encoder's pictures."""
    facts = facts_of(detector)
    encoder_input = ImageInput(
        height_px=options.encoder_px[0],
        width_px=options.encoder_px[1],
        place="top_left",
        interpolation="area",
        mean=PIXEL_MEAN,
        std=PIXEL_STD,
        pad=PIXEL_MEAN,
    )
    return Pipeline(
        class_names=facts.class_names,
        head=DetectorHead(
            strides_px=facts.strides_px,
            reg_max=facts.reg_max,
            end2end=facts.end2end,
            n_coefficients=facts.n_coefficients,
            name="obb" if facts.angle else "detect",
            angle=facts.angle or "sigmoid",
        ),
        detector_input=ImageInput(
            height_px=options.detector_px[0],
            width_px=options.detector_px[1],
            place="centre",
            interpolation="linear",
            mean=(0.0, 0.0, 0.0),
            std=(255.0, 255.0, 255.0),
            pad=DETECTOR_PAD,
        ),
        trained_scale=facts.trained_scale,
        encoder_input=encoder_input if kind == "sam" else None,
        prompt=options.prompt if kind == "sam" else None,
    )
