"""Oriented networks with fixed random weights, whose boxes are turned, of several classes and not all alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

CLASSES = ("plane", "ship", "harbor")
TINY: dict[str, Any] = {
    "nc": len(CLASSES),
    "backbone": [[-1, 1, "Conv", [width, 3, 2]] for width in (8, 16, 32, 32, 32)],
    "head": [[[2, 3, 4], 1, "OBB", ["nc", 1]]],
}
"""Five convolutions and an oriented head: exported in seconds."""


def oriented_network(seed: int = 0, architecture: str | dict[str, Any] = "yolo11n-obb.yaml") -> Any:
    """An `OBBModel` in eval mode that finds some dozen objects per picture at confidence 0.25."""
    import torch
    from ultralytics.nn.tasks import OBBModel

    torch.manual_seed(seed)
    model = OBBModel(architecture, nc=len(CLASSES), verbose=False)
    model.names = dict(enumerate(CLASSES))
    head = model.model[-1]
    with torch.no_grad():
        _settle_norms(model)
        for branch, gain, bias in (("cv2", 10, 1.0), ("cv3", 15, -3.5), ("cv4", 20, 0.0)):
            for level in getattr(head, branch):
                level[-1].weight.mul_(gain)
                level[-1].bias.fill_(bias)
    return model.eval()


def _settle_norms(model: Any) -> None:
    """Give batch norms the statistics of pictures: with fresh ones the signal fades away in the first layers."""
    import torch

    from edgekd.package_files import DEMO_PICTURE
    from edgekd.runtime.sources import read_picture

    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    scene = torch.from_numpy(read_picture(DEMO_PICTURE).copy()).permute(2, 0, 1).float() / 255
    parts = [scene[:, :320, :320], scene[:, 320:, 320:640], scene[:, 100:420, 640:], torch.rand(3, 320, 320)]
    model.train()(torch.stack(parts))
    for norm in norms:
        norm.momentum = 0.03


def write_oriented_checkpoint(
    path: Path, seed: int = 0, architecture: str | dict[str, Any] = "yolo11n-obb.yaml"
) -> Path:
    """The network as Ultralytics saves it."""
    import torch

    torch.save({"model": oriented_network(seed, architecture), "train_args": {"task": "obb"}}, path)
    return path


def write_oriented_models(folder: Path) -> Path:
    """Models of the kind `crop` whose detector is the shipped one with angles: each anchor's from its class logits."""
    import json

    import onnx
    from kind_models import write_crop_models
    from onnx import TensorProto, helper, numpy_helper

    from edgekd.files import sha256_of
    from edgekd.graphs import ANGLE_LOGITS, CLASS_LOGITS

    write_crop_models(folder)
    model = onnx.load(folder / "detector.onnx")
    for name, value in (("angle_axes", np.array([1], np.int64)), ("angle_gain", np.array(0.4, np.float32))):
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    model.graph.node.append(helper.make_node("ReduceMean", [CLASS_LOGITS, "angle_axes"], ["angle_mean"], keepdims=1))
    model.graph.node.append(helper.make_node("Add", ["angle_mean", "angle_shift"], ["angle_centred"]))
    model.graph.node.append(helper.make_node("Mul", ["angle_centred", "angle_gain"], [ANGLE_LOGITS]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(9, np.float32), "angle_shift"))
    anchors = [axis.dim_param or axis.dim_value for axis in model.graph.output[0].type.tensor_type.shape.dim]
    shape = [anchors[0], 1, anchors[2]]
    model.graph.output.append(helper.make_tensor_value_info(ANGLE_LOGITS, TensorProto.FLOAT, shape))
    onnx.save(model, folder / "detector.onnx")
    described = json.loads((folder / "models.json").read_text())
    detector = described["stages"]["detector"]
    detector["outputs"].append({"name": ANGLE_LOGITS, "shape": shape, "dtype": "float32", "layout": "N 1 A"})
    detector["sha256"] = sha256_of(folder / "detector.onnx")
    described["pipeline"]["head"] |= {"name": "obb", "angle": "sigmoid"}
    (folder / "models.json").write_text(json.dumps(described))
    return folder
