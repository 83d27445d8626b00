"""Models of the kinds beside `sam`: a crop network and a segment network, both with fixed random weights."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from edgekd.files import sha256_of
from edgekd.graphs import (
    BOX_LOGITS,
    CROPS,
    IMAGES,
    MASK_COEFFICIENTS,
    MASK_LOGITS,
    MASK_PROTOTYPES,
    PREDICTED_IOU,
)
from edgekd.model_set import FILE_NAME, CropInput, ModelSet, OnnxStage, Source, TensorSpec, read_model_set
from edgekd.package_files import default_models

SIDE_PX = 32
CROP = CropInput(side_px=SIDE_PX, window_factor=1.3, pad=(114.0, 114.0, 114.0))


def write_crop_models(folder: Path, detector_px: int | None = None) -> Path:
    """Write the set; the network answers with a blurred contrast of the colours, so that masks have structure.

    `detector_px` is the side of the detector's input, by default that of the shipped one.
    """
    import onnx

    folder.mkdir()
    shipped = default_models()
    models = read_model_set(shipped)
    shutil.copyfile(shipped / models.stages["detector"].file, folder / "detector.onnx")
    onnx.save(crop_network(), folder / "segmenter.onnx")
    shape = ("n_boxes", SIDE_PX, SIDE_PX)
    segmenter = OnnxStage(
        file="segmenter.onnx",
        sha256=sha256_of(folder / "segmenter.onnx"),
        inputs=(TensorSpec(name=CROPS, shape=(*shape, 3), dtype="uint8", layout="NHWC RGB"),),
        outputs=(
            TensorSpec(name=MASK_LOGITS, shape=shape, dtype="float32", layout="NHW logits"),
            TensorSpec(name=PREDICTED_IOU, shape=shape[:1], dtype="float32", layout="N"),
        ),
        opset=18,
        source=Source(name="random", sha256="0", licence="none", trained=False),
    )
    detector = models.stages["detector"].model_copy(update={"file": "detector.onnx"})
    sides = {"height_px": detector_px, "width_px": detector_px} if detector_px else {}
    input_of_detector = models.pipeline.detector_input.model_copy(update=sides)
    changes = {"detector_input": input_of_detector, "encoder_input": None, "prompt": None, "crop": CROP}
    pipeline = models.pipeline.model_copy(update=changes)
    described = ModelSet(kind="crop", pipeline=pipeline, stages={"detector": detector, "segmenter": segmenter})
    (folder / FILE_NAME).write_text(described.model_dump_json())
    return folder


def write_segment_models(folder: Path) -> Path:
    """Write a set of the kind yolo-seg without Ultralytics: the shipped detector, with masks of its picture's colours.

    Prototypes are two means over 4 x 4 pixels and a constant; coefficients are three of the detector's numbers.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir()
    shipped = default_models()
    models = read_model_set(shipped)
    model = onnx.load(shipped / models.stages["detector"].file)
    constants = {
        "mask_colours": np.array([[1, -1, 0], [0, 1, -1], [0, 0, 0]], np.float32).reshape(3, 3, 1, 1) * 20,
        "mask_bias": np.array([0, 0, 1], np.float32),
        "mask_first": np.array([0], np.int64), "mask_last": np.array([3], np.int64),
        "mask_axis": np.array([1], np.int64),
    }  # fmt: skip
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    model.graph.node.extend([
        helper.make_node("AveragePool", [IMAGES], ["mask_pool"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["mask_pool", "mask_colours", "mask_bias"], [MASK_PROTOTYPES]),
        helper.make_node("Slice", [BOX_LOGITS, "mask_first", "mask_last", "mask_axis"], [MASK_COEFFICIENTS]),
    ])  # fmt: skip
    specs = (
        TensorSpec(name=MASK_COEFFICIENTS, shape=("n", 3, "anchors"), dtype="float32", layout="NCA"),
        TensorSpec(name=MASK_PROTOTYPES, shape=("n", 3, "height_4", "width_4"), dtype="float32", layout="NCHW"),
    )
    model.graph.output.extend(
        helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape)) for spec in specs
    )
    onnx.save(model, folder / "detector.onnx")
    stage = models.stages["detector"]
    described = {"file": "detector.onnx", "sha256": sha256_of(folder / "detector.onnx")}
    detector = stage.model_copy(update=described | {"outputs": (*stage.outputs, *specs)})
    head = models.pipeline.head.model_copy(update={"n_coefficients": 3})
    pipeline = models.pipeline.model_copy(update={"encoder_input": None, "prompt": None, "head": head})
    found = ModelSet(kind="yolo-seg", pipeline=pipeline, stages={"detector": detector})
    (folder / FILE_NAME).write_text(found.model_dump_json())
    return folder


def crop_network():  # type: ignore[no-untyped-def]
    """(n, S, S, 3) uint8 -> logits (n, S, S) and predicted IoU (n,), as ONNX."""
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(3)
    weights = {
        "mean": np.float32(127.5),
        "first": generator.normal(0, 0.02, (6, 3, 5, 5)).astype(np.float32),
        "second": generator.normal(0, 0.5, (1, 6, 5, 5)).astype(np.float32),
        "axis": np.array([1], np.int64),
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("Cast", [CROPS], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "mean"], ["centred"]),
        helper.make_node("Transpose", ["centred"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "first"], ["hidden"], pads=[2] * 4),
        helper.make_node("Relu", ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "second"], ["map"], pads=[2] * 4),
        helper.make_node("Squeeze", ["map", "axis"], [MASK_LOGITS]),
        helper.make_node("ReduceMean", [MASK_LOGITS, "axes"], ["score"], keepdims=0),
        helper.make_node("Sigmoid", ["score"], [PREDICTED_IOU]),
    ]
    graph = helper.make_graph(
        nodes,
        "crop",
        [helper.make_tensor_value_info(CROPS, TensorProto.UINT8, ["n_boxes", SIDE_PX, SIDE_PX, 3])],
        [
            helper.make_tensor_value_info(MASK_LOGITS, TensorProto.FLOAT, ["n_boxes", SIDE_PX, SIDE_PX]),
            helper.make_tensor_value_info(PREDICTED_IOU, TensorProto.FLOAT, ["n_boxes"]),
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_segment_checkpoint(path: Path, coco: Path) -> Path:
    """A YOLO11n-seg: COCO's detector, with prototypes and coefficients of random weights on its features."""
    import torch
    from ultralytics.nn.tasks import SegmentationModel

    from edgekd.models.yolo11n import load_detector

    torch.manual_seed(1)
    detector = load_detector(coco)
    model = SegmentationModel("yolo11n-seg.yaml", nc=80, verbose=False).eval()
    model.load_state_dict(detector.state_dict(), strict=False)
    model.names = detector.names
    head = model.model[-1]
    with torch.no_grad():
        for branch in head.cv4:
            branch[-1].weight.normal_(0, 1)
        # Smooth prototypes, as training makes them: no checkerboard of the upsampling, averages of neighbours.
        for layer in (head.proto.upsample, head.proto.cv2.conv):
            layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
        head.proto.cv3.bn.weight *= 20
        head.proto.cv3.bn.bias.normal_(0, 0.5)
        # One prototype is the same everywhere, so that masks fill most of their boxes, as those of objects do.
        head.proto.cv3.bn.weight[0], head.proto.cv3.bn.bias[0] = 0, 4
        for branch in head.cv4:
            branch[-1].weight[0], branch[-1].bias[0] = 0, 4
    torch.save({"model": model, "train_args": {"task": "segment"}}, path)
    return path
