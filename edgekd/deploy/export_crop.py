"""A crop segmenter joins a detector: its network becomes ONNX beside the detector's graph, a model set of kind `crop`.

In: a `CropSegmenter` and a detector, exported already (any model set, the shipped one too) or not. Out: a folder with
`detector.onnx`, `segmenter.onnx` and `models.json`. The number of crops stays open.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim
from torch.nn.utils.fusion import fuse_conv_bn_eval

from edgekd.deploy.export import ExportOptions, Graph, detector_graph, export_graph, pipeline_of
from edgekd.errors import ModelError
from edgekd.files import atomic_folder
from edgekd.graphs import CROPS, MASK_LOGITS, PREDICTED_IOU, is_input_size
from edgekd.model_set import ModelSet, OnnxStage, Source, listed_files, read_model_set, write_model_set
from edgekd.models.crop_segmenter import ConvNorm, CropSegmenter, crop_input_of
from edgekd.models.crop_set import crop_set_of
from edgekd.models.yolo11n import facts_of

_EXAMPLE_CROPS = 3
_MOST_CROPS = 1024


def export_crop_models(
    detector: Path, segmenter: CropSegmenter, source: Source, destination: Path, half_storage: bool = False
) -> ModelSet:
    """Write a model set of the kind `crop`, atomically.

    Args:
        detector: folder of a model set whose detector is taken as it is.
        segmenter: from `load_crop_segmenter`.
        source: where the segmenter's weights come from.
        destination: the folder to make or replace.
        half_storage: store the segmenter's weights as fp16.

    Raises:
        ModelError: the set is damaged, its detector is quantized or brings masks, or the graph differs from PyTorch by
            more than `export_graph` allows.
    """
    known = read_model_set(detector)
    with atomic_folder(destination, listed_files) as folder:
        stage = export_segmenter(segmenter, folder / "segmenter.onnx", source, half_storage)
        model_set = crop_set_of(known, stage, crop_input_of(segmenter))
        shutil.copyfile(detector / known.stages["detector"].file, folder / model_set.stages["detector"].file)
        write_model_set(folder, model_set)
    return model_set


def export_crop_networks(
    detector: nn.Module,
    segmenter: CropSegmenter,
    sources: Mapping[str, Source],
    destination: Path,
    options: ExportOptions,
) -> ModelSet:
    """Export a detector and a crop segmenter together; arguments and errors as for `export.export_networks`."""
    if facts_of(detector).n_coefficients:
        raise ModelError("the detector brings its own masks, expected a detector of boxes; leave out the segmenter")
    if not is_input_size(options.detector_px):
        height, width = options.detector_px
        raise ModelError(
            f"detector_px is {width}x{height}, expected sides that are multiples of 32 up to 8192; try 640"
        )
    graphs = {"detector": detector_graph(detector, options), "segmenter": segmenter_graph(segmenter)}
    with atomic_folder(destination, listed_files) as folder:
        stages = {
            name: export_graph(graph, folder / f"{name}.onnx", sources[name], options.half_storage)
            for name, graph in graphs.items()
        }
        pipeline = pipeline_of(detector, "crop", options).model_copy(update={"crop": crop_input_of(segmenter)})
        model_set = ModelSet.model_validate({"kind": "crop", "pipeline": pipeline, "stages": stages})
        write_model_set(folder, model_set)
    return model_set


def export_segmenter(segmenter: CropSegmenter, path: Path, source: Source, half_storage: bool) -> OnnxStage:
    """Export the network alone. Raises ModelError as `export_graph`."""
    return export_graph(segmenter_graph(segmenter), path, source, half_storage)


def segmenter_graph(segmenter: CropSegmenter) -> Graph:
    """The network with its batch norms folded into its convolutions, and example crops."""
    side = segmenter.size.side_px
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(_EXAMPLE_CROPS, 3, side // 8, side // 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    crops = (255 * smooth).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return Graph(
        folded(segmenter),
        (crops,),
        (CROPS,),
        (MASK_LOGITS, PREDICTED_IOU),
        ({0: Dim("n_boxes", min=1, max=_MOST_CROPS)},),
        {CROPS: "NHWC RGB", MASK_LOGITS: "NHW logits", PREDICTED_IOU: "N"},
    )


def folded(segmenter: CropSegmenter) -> nn.Module:
    """A copy in eval mode whose convolutions hold their batch norms."""
    network = copy.deepcopy(segmenter).eval().to(memory_format=torch.contiguous_format)
    for module in network.modules():
        if isinstance(module, ConvNorm):
            module[0] = fuse_conv_bn_eval(module[0], module[1])  # type: ignore[type-var]
            module[1] = nn.Identity()
    return network
