"""Students of turned boxes: known by the head of their description, trained as Ultralytics' task `obb`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.errors import ModelError
from edgekd.models.architecture import is_oriented_description, read_architecture
from edgekd.models.yolo11n import load_detector


def is_oriented_student(student: object, state: Mapping[str, Any] | None) -> bool:
    """Whether a student learns turned boxes.

    Args:
        student: a checkpoint (.pt), an architecture (.yaml), or a network.
        state: of a resumed run, whose own description counts; None for a new run.

    Raises:
        ModelError: the checkpoint or the architecture cannot be read.
    """
    if state is not None:
        return is_oriented_description(state["student_yaml"])
    if not isinstance(student, str):
        return type(student).__name__ == "OBBModel"
    if student.endswith(".pt"):
        return type(load_detector(student, oriented=True)).__name__ == "OBBModel"
    return is_oriented_description(read_architecture(student))


def check_head(model: Any, source: str, oriented: bool) -> None:
    """Refuse a head that learns more than boxes, upright or turned: it would train on labels that lack the rest."""
    from ultralytics.nn.modules.head import OBB, OBB26, Detect, v10Detect

    head = type(model.model[-1])
    if head not in ((OBB, OBB26) if oriented else (Detect, v10Detect)):
        raise ModelError(
            f"{source} has a head of the kind {head.__name__} and the labels are boxes; give a detection or OBB "
            "architecture or checkpoint, such as yolo11n.yaml or yolo11n-obb.yaml"
        )
