"""Descriptions of detectors: a name, a YAML file or a dictionary of layers in, a checked `DetectionModel` out.

A description is data, whoever wrote it. Ultralytics evaluates its `activation` as Python and calls whatever function a
layer names, so every description is checked here before a network is built from it, whatever the environment says.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgekd.errors import ModelError, first_line

_ACTIVATION = re.compile(r"(?:torch\.)?nn\.(\w+)\(\s*(?:(?:inplace|negative_slope)\s*=\s*)?(?:True|False|[\d.]*)\s*\)")
_WORD = re.compile(r"[\w.+-]{1,64}")
_FETCHES = {"TorchVision"}  # downloads weights of its own
LARGEST_NUMBER = 1 << 16


def check_architecture(description: object, source: str) -> dict[str, Any]:
    """Check a description of layers and return a copy of it.

    Args:
        description: as Ultralytics' YAML holds it: `backbone` and `head`, lists of [from, number, module, arguments].
        source: where it comes from, for messages.

    Raises:
        ModelError: it is not such a dictionary, its activation is not a plain torch.nn layer, a module is not a layer
            of torch.nn or Ultralytics, or an argument is anything but a number, a word or a list of these.
    """
    if not isinstance(description, Mapping) or not {"backbone", "head"} <= description.keys():
        raise ModelError(f"{source} describes no detector: it needs backbone and head; give an Ultralytics model YAML")
    _check_activation(description.get("activation"), source)
    for part in ("backbone", "head"):
        rows = description[part]
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            raise ModelError(f"{source}: {part} is {type(rows).__name__}, expected a list of layers")
        for number, row in enumerate(rows, start=1):
            _check_layer(row, f"{source}: layer {number} of {part}")
    others = {name: value for name, value in description.items() if name not in ("backbone", "head", "activation")}
    _check_value(others.get("scales", {}), f"{source}: scales")
    return copy.deepcopy(dict(description))


def read_architecture(name: str) -> dict[str, Any]:
    """A checked description by Ultralytics' name (`yolo11n.yaml`) or from a local file.

    Raises:
        ModelError: there is none, it is an address, it is not YAML, or it is refused by `check_architecture`.
    """
    import yaml
    from ultralytics.nn.tasks import yaml_model_load

    if "://" in name:
        raise ModelError(f"{name} is an address; download the architecture and give the file")
    try:
        description = yaml_model_load(name)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        reason = first_line(error)
        raise ModelError(f"{name} cannot be read as an architecture ({reason}); give an Ultralytics YAML") from error
    return check_architecture(description, name)


def is_oriented_description(description: Mapping[str, Any]) -> bool:
    """Whether the last layer of a checked description is a head of turned boxes."""
    return str(description["head"][-1][2]).startswith("OBB")


def build_detector(description: object, n_classes: int, class_width: int, source: str) -> Any:
    """A `DetectionModel`, or `OBBModel`, of random weights whose class branch has `class_width` channels.

    Ultralytics derives the width of the class branch from the number of classes, but keeps the width of the checkpoint
    that a training started from: a detector of 10 classes that began with the 80 of COCO is wider than its description.

    Raises:
        ModelError: the description is refused.
    """
    from ultralytics.nn.tasks import DetectionModel, OBBModel

    layers = check_architecture(description, source)
    kind = OBBModel if is_oriented_description(layers) else DetectionModel

    def build(n: int) -> Any:
        return kind(copy.deepcopy(layers) | {"nc": n}, ch=int(layers.get("channels", 3)), verbose=False)

    model = build(n_classes)
    if class_width != model.model[-1].cv3[0][-1].in_channels:
        model.load(build(class_width), verbose=False)
    return model


def rebuild_detector(
    description: object, class_names: Sequence[str], weights: Mapping[str, Tensor], source: str
) -> Any:
    """A `DetectionModel`, or `OBBModel`, with given weights, whatever width its class branch had when it was trained.

    Args:
        description: see `check_architecture`.
        class_names: in the order of the class logits.
        weights: the state dict of the bare detector.
        source: where all this comes from, for messages.

    Raises:
        ModelError: the description is refused, or the weights do not fit it.
    """
    description = check_architecture(description, source)
    try:
        last = f"model.{len(description['backbone']) + len(description['head']) - 1}.cv3.0."
        width = max((key, int(value.shape[1])) for key, value in weights.items() if _ends_branch(key, last))[1]
        model = build_detector(description, len(class_names), width, source)
        model.load_state_dict(weights)
    except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        reason = first_line(error)
        raise ModelError(
            f"{source}: description and weights do not fit ({reason}); give a file of this version"
        ) from error
    model.names = dict(enumerate(class_names))
    return model


def _ends_branch(key: str, branch: str) -> bool:
    """Whether a weight is a plain convolution of a branch: the last one is, and the blocks before it are not."""
    return key.startswith(branch) and key.endswith(".weight") and key.count(".") == branch.count(".") + 1


def _check_activation(activation: object, source: str) -> None:
    if activation is None:
        return
    found = _ACTIVATION.fullmatch(activation) if isinstance(activation, str) else None
    kind = getattr(nn, found[1], None) if found else None
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ModelError(
            f"{source}: the activation is {str(activation)[:60]!r}, expected a layer of torch.nn such as nn.SiLU(); "
            "it would be run as code"
        )


def _check_layer(row: object, where: str) -> None:
    if not isinstance(row, Sequence) or isinstance(row, str) or len(row) != 4:
        raise ModelError(f"{where} is {str(row)[:60]!r}, expected [from, number, module, arguments]")
    came_from, number, module, arguments = row
    if not isinstance(module, str) or not _is_layer(module):
        raise ModelError(f"{where} names {str(module)[:60]!r}, which is not a layer of torch.nn or Ultralytics")
    for value in (came_from, number, arguments):
        _check_value(value, where)


def _is_layer(name: str) -> bool:
    from ultralytics.nn import tasks

    kind = getattr(nn, name[3:], None) if name.startswith("nn.") else getattr(tasks, name, None)
    is_module = isinstance(kind, type) and issubclass(kind, nn.Module)
    return is_module and not issubclass(kind, tasks.BaseModel) and name not in _FETCHES  # type: ignore[arg-type]


def _check_value(value: object, where: str) -> None:
    if isinstance(value, str):
        if not _WORD.fullmatch(value) and not _ACTIVATION.fullmatch(value):
            raise ModelError(f"{where} holds {value[:60]!r}, expected numbers and plain words")
    elif isinstance(value, Mapping):
        for inner in value.values():
            _check_value(inner, where)
    elif isinstance(value, Sequence):
        for inner in value:
            _check_value(inner, where)
    elif not (value is None or isinstance(value, (bool, int, float))) or abs(value or 0) > LARGEST_NUMBER:
        raise ModelError(f"{where} holds {str(value)[:60]!r}, expected numbers up to {LARGEST_NUMBER} and plain words")
