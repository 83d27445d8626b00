"""A student that begins with its teacher's weights: which channels, through which layers, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("ultralytics")

from ultralytics.nn.tasks import DetectionModel

from edgekd.errors import TrainingError
from edgekd.models.architecture import read_architecture
from edgekd.models.levels import capture
from edgekd.train.distill import inherit
from edgekd.train.distill.inherit import inherit_weights

CLASSES = ["ship", "plane", "tank"]


def detector(width: float, names: list[str] | None = None) -> DetectionModel:
    """A YOLO11 of a width with random weights, statistics included."""
    description = read_architecture("yolo11n.yaml")
    description["scales"] = {"n": [0.5, width, 1024]}
    description["scale"] = "n"
    torch.manual_seed(round(1000 * width))
    model = DetectionModel(description, nc=len(names or CLASSES), verbose=False)
    model.names = dict(enumerate(names or CLASSES))
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5)
    return model.eval()


def test_a_student_as_wide_as_the_teacher_computes_the_same() -> None:
    teacher, student = detector(0.125), detector(0.125)
    for tensor in student.parameters():
        tensor.data.add_(1.0)
    assert inherit_weights(student, teacher) == len(teacher.state_dict())
    picture = torch.rand(1, 3, 64, 64)
    assert torch.equal(student(picture)[0], teacher(picture)[0])


def test_twin_channels_lose_nothing() -> None:
    """A teacher whose neighbouring channels are alike computes what its half computes; that half is what is taken."""
    student = detector(0.125)
    teacher = twin_of(student)
    kept = copy.deepcopy(student.state_dict())
    layers = (2, 4, 6, 8, 9)  # up to the attention, whose number of heads differs
    picture = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), capture(student, layers) as ours, capture(teacher, layers) as theirs:
        student(picture), teacher(picture)
    for layer in layers:
        torch.testing.assert_close(theirs[layer][:, ::2], ours[layer], rtol=1e-4, atol=1e-5)
    for tensor in student.parameters():
        tensor.data.zero_()
    inherit_weights(student, teacher)
    for name, tensor in student.state_dict().items():
        torch.testing.assert_close(tensor, kept[name], rtol=1e-5, atol=1e-6, msg=name)


def test_queries_keys_and_values_keep_their_kind() -> None:
    student, teacher = detector(0.125), detector(0.25)
    name = "model.10.m.0.attn"
    ours, theirs = student.get_submodule(name), teacher.get_submodule(name)
    assert (ours.num_heads, theirs.num_heads) == (1, 2)
    kinds = torch.tensor(([0] * theirs.key_dim + [1] * theirs.key_dim + [2] * theirs.head_dim) * 2, dtype=torch.float)
    theirs.qkv.bn.bias.data = kinds.clone()
    inherit_weights(student, teacher)
    assert ours.qkv.bn.bias.tolist() == [0] * ours.key_dim + [1] * ours.key_dim + [2] * ours.head_dim


def test_scores_of_other_classes_are_not_taken() -> None:
    student, teacher = detector(0.125), detector(0.25, ["cat", "dog", "cow", "owl"])
    before = copy.deepcopy(student.state_dict())
    n_taken = inherit_weights(student, teacher)
    left = [name for name, tensor in student.state_dict().items() if ".cv3." in name and name.count(".") == 5]
    scores = [name for name in left if name.endswith(("2.weight", "2.bias"))]
    assert len(scores) == 6 and n_taken == len(before) - 6
    assert all(torch.equal(student.state_dict()[name], before[name]) for name in scores)
    assert not torch.equal(student.state_dict()["model.0.conv.weight"], before["model.0.conv.weight"])


def test_a_wider_student_is_refused() -> None:
    with pytest.raises(TrainingError, match="at least as wide"):
        inherit_weights(detector(0.25), detector(0.125))


def twin_of(student: DetectionModel) -> DetectionModel:
    """A detector of twice the width whose channels are those of the student, each one twice."""
    teacher = detector(0.25)
    ours, rows = student.state_dict(), inherit._attention_rows(student, teacher)
    filled = {}
    for name, wide in teacher.state_dict().items():
        own = ours[name]
        for axis, n_student in enumerate(own.shape):
            n_teacher = wide.shape[axis]
            place = torch.arange(n_teacher) * n_student // n_teacher
            if axis == 0 and name in rows:
                place[rows[name]] = torch.arange(n_student)
            own = own.index_select(axis, place)
        filled[name] = own * (ours[name].shape[1] / wide.shape[1]) if wide.dim() > 1 else own
    teacher.load_state_dict(filled)
    return teacher


def test_an_oriented_student_keeps_its_angles_and_takes_the_rest_of_an_upright_teacher() -> None:
    from ultralytics.nn.tasks import OBBModel

    student, teacher = OBBModel(read_architecture("yolo11n-obb.yaml"), nc=3, verbose=False), detector(0.25)
    student.names = dict(enumerate(CLASSES))
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    inherit_weights(student, teacher)
    after, theirs = student.state_dict(), teacher.state_dict()
    angles = {name for name in after if ".cv4." in name}
    assert angles and all(torch.equal(after[name], before[name]) for name in angles)
    assert all(torch.equal(after[name], theirs[name]) for name in after if name not in angles)
