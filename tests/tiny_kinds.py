"""Model sets of every kind whose networks are a handful of operators, at any size: for many calls, or large tensors.

They find boxes and masks that depend on the picture: a cell whose colour leans one way is an object, and its mask is
where the box lies, changed a little by the picture.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from kind_models import CROP, crop_network
from onnx import TensorProto, helper, numpy_helper

from edgekd.files import sha256_of
from edgekd.graphs import (
    BOX_LOGITS,
    CLASS_LOGITS,
    CROPS,
    IMAGES,
    LOW_RES_MASKS,
    MASK_COEFFICIENTS,
    MASK_PROTOTYPES,
    PREDICTED_IOU,
)
from edgekd.model_set import FILE_NAME, ModelSet, OnnxStage, TensorSpec, read_model_set
from edgekd.package_files import default_models

KINDS = ("sam", "crop", "yolo-seg")
N_CLASSES, CHANNELS = 10, 256
Value = tuple[str, int, tuple[int | str, ...]]


def write_tiny_models(folder: Path, kind: str, detector_px: int = 64, encoder_px: int = 64) -> Path:
    """Write a set of a kind; sides are multiples of 32."""
    folder.mkdir(parents=True)
    shipped = read_model_set(default_models())
    pipeline = shipped.pipeline
    changes: dict[str, object] = {"detector_input": _sized(pipeline.detector_input, detector_px)}
    graphs = {"detector": detector(detector_px, with_masks=kind == "yolo-seg")}
    if kind == "sam":
        graphs |= {"encoder": encoder(encoder_px), "decoder": decoder(encoder_px)}
        changes["encoder_input"] = _sized(pipeline.encoder_input, encoder_px)
    else:
        changes |= {"encoder_input": None, "prompt": None}
    if kind == "crop":
        graphs["segmenter"] = crop_network()
        changes["crop"] = CROP
    if kind == "yolo-seg":
        changes["head"] = pipeline.head.model_copy(update={"n_coefficients": 3})
    stages = {name: _stage(shipped.stages["detector"], name, model, folder) for name, model in graphs.items()}
    described = ModelSet(kind=kind, pipeline=pipeline.model_copy(update=changes), stages=stages)
    (folder / FILE_NAME).write_text(described.model_dump_json())
    return folder


def detector(side_px: int, with_masks: bool) -> onnx.ModelProto:
    """Means over cells of 8, 16 and 32 px become boxes of about two cells and classes; masks are of the same means."""
    generator = np.random.default_rng(1)
    classes = generator.normal(0, 12, (N_CLASSES, 3)).astype(np.float32)
    sides = np.full(64, -4, np.float32)
    sides[1::16] = 4  # every side of a box is about one cell away
    constants = {
        "box_weights": generator.normal(0, 0.5, (64, 3, 1, 1)).astype(np.float32), "box_bias": sides,
        "class_weights": (classes - classes.mean(1, keepdims=True)).reshape(N_CLASSES, 3, 1, 1),
        "class_bias": np.full(N_CLASSES, -3, np.float32),
    }  # fmt: skip
    nodes, parts = [], {"box": [], "class": []}  # type: ignore[var-annotated]
    for stride in (8, 16, 32):
        cells = f"cells_{stride}"
        nodes.append(
            helper.make_node("AveragePool", [IMAGES], [cells], kernel_shape=[stride] * 2, strides=[stride] * 2)
        )
        for what, n in (("box", 64), ("class", N_CLASSES)):
            maps, rows = f"{what}_maps_{stride}", f"{what}_rows_{stride}"
            nodes.append(helper.make_node("Conv", [cells, f"{what}_weights", f"{what}_bias"], [maps]))
            constants[f"{rows}_shape"] = np.array([1, n, (side_px // stride) ** 2], np.int64)
            nodes.append(helper.make_node("Reshape", [maps, f"{rows}_shape"], [rows]))
            parts[what].append(rows)
    nodes.append(helper.make_node("Concat", parts["box"], [BOX_LOGITS], axis=2))
    nodes.append(helper.make_node("Concat", parts["class"], [CLASS_LOGITS], axis=2))
    anchors = sum((side_px // stride) ** 2 for stride in (8, 16, 32))
    outputs: list[Value] = [
        (BOX_LOGITS, TensorProto.FLOAT, (1, 64, anchors)), (CLASS_LOGITS, TensorProto.FLOAT, (1, N_CLASSES, anchors))
    ]  # fmt: skip
    if with_masks:
        constants |= {
            "mask_weights": np.array([[1, -1, 0], [0, 1, -1], [0, 0, 0]], np.float32).reshape(3, 3, 1, 1) * 20,
            "mask_bias": np.array([0, 0, 1], np.float32),
            "mask_first": np.array([0], np.int64), "mask_last": np.array([3], np.int64),
            "mask_axis": np.array([1], np.int64),
        }  # fmt: skip
        nodes += [
            helper.make_node("AveragePool", [IMAGES], ["fours"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Conv", ["fours", "mask_weights", "mask_bias"], [MASK_PROTOTYPES]),
            helper.make_node("Slice", [BOX_LOGITS, "mask_first", "mask_last", "mask_axis"], [MASK_COEFFICIENTS]),
        ]
        quarter = side_px // 4
        outputs += [
            (MASK_COEFFICIENTS, TensorProto.FLOAT, (1, 3, anchors)),
            (MASK_PROTOTYPES, TensorProto.FLOAT, (1, 3, quarter, quarter)),
        ]
    return _model(nodes, [(IMAGES, TensorProto.FLOAT, (1, 3, side_px, side_px))], outputs, constants)


def encoder(side_px: int) -> onnx.ModelProto:
    """Means over cells of 16 px become embeddings."""
    weights = np.random.default_rng(2).normal(0, 1, (CHANNELS, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Conv", ["cells", "weights"], ["image_embeddings"]),
    ]
    grid = side_px // 16
    embeddings = ("image_embeddings", TensorProto.FLOAT, (1, CHANNELS, grid, grid))
    return _model(nodes, [("image", TensorProto.FLOAT, (1, 3, side_px, side_px))], [embeddings], {"weights": weights})


def decoder(side_px: int) -> onnx.ModelProto:
    """A mask is how far a point lies inside its box, in units of 4 px, plus what the embeddings say there."""
    grid, low = side_px // 16, side_px // 4
    centres = (np.arange(low, dtype=np.float32) + 0.5) * 4
    constants = {
        "mix": np.random.default_rng(3).normal(0, 0.05, (1, CHANNELS, 1, 1)).astype(np.float32),
        "four": np.float32(4), "x": centres.reshape(1, 1, low), "y": centres.reshape(1, low, 1),
        "last": np.array([2], np.int64), "channel": np.array([1], np.int64), "all": np.array([1, 2], np.int64),
        "scales": np.array([1, 1, 4, 4], np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["image_embeddings", "mix"], ["map"]),
        helper.make_node("Resize", ["map", "", "scales"], ["fine"], mode="nearest"),
        helper.make_node("Squeeze", ["fine", "channel"], ["seen"]),
        helper.make_node("Unsqueeze", ["boxes", "last"], ["columns"]),
        helper.make_node("Split", ["columns"], ["left", "top", "right", "bottom"], axis=1, num_outputs=4),
        helper.make_node("Sub", ["x", "left"], ["from_left"]),
        helper.make_node("Sub", ["right", "x"], ["from_right"]),
        helper.make_node("Sub", ["y", "top"], ["from_top"]),
        helper.make_node("Sub", ["bottom", "y"], ["from_bottom"]),
        helper.make_node("Min", ["from_left", "from_right", "from_top", "from_bottom"], ["inside"]),
        helper.make_node("Div", ["inside", "four"], ["deep"]),
        helper.make_node("Add", ["deep", "seen"], [LOW_RES_MASKS]),
        helper.make_node("ReduceMean", [LOW_RES_MASKS, "all"], ["score"], keepdims=0),
        helper.make_node("Sigmoid", ["score"], [PREDICTED_IOU]),
    ]
    inputs: list[Value] = [
        ("image_embeddings", TensorProto.FLOAT, (1, CHANNELS, grid, grid)), ("boxes", TensorProto.FLOAT, ("n_boxes", 4))
    ]  # fmt: skip
    outputs: list[Value] = [
        (LOW_RES_MASKS, TensorProto.FLOAT, ("n_boxes", low, low)), (PREDICTED_IOU, TensorProto.FLOAT, ("n_boxes",))
    ]  # fmt: skip
    return _model(nodes, inputs, outputs, constants)


def scenes(n: int = 4) -> np.ndarray:
    """Return pictures of coloured blocks, (n, 96, 128, 3) uint8, in which the detector finds other boxes each time."""
    blocks = np.random.default_rng(5).integers(0, 256, (n, 12, 16, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


def _sized(spec, side_px):  # type: ignore[no-untyped-def]
    return spec.model_copy(update={"height_px": side_px, "width_px": side_px})


def _model(nodes, inputs: list[Value], outputs: list[Value], constants) -> onnx.ModelProto:  # type: ignore[no-untyped-def]
    described = [[helper.make_tensor_value_info(*value) for value in side] for side in (inputs, outputs)]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", *described, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def _stage(like: OnnxStage, name: str, model: onnx.ModelProto, folder: Path) -> OnnxStage:
    onnx.save(model, folder / f"{name}.onnx")
    sides = []
    for values in (model.graph.input, model.graph.output):
        sides.append(
            tuple(
                TensorSpec(
                    name=value.name,
                    shape=tuple(axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim),
                    dtype="uint8" if value.name == CROPS else "float32",
                    layout="N...",
                )
                for value in values
            )
        )
    described = {"file": f"{name}.onnx", "sha256": sha256_of(folder / f"{name}.onnx"), "inputs": sides[0]}
    return like.model_copy(update=described | {"outputs": sides[1]})
