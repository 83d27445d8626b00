"""The plan of a functional stand-in for TensorRT: a few lines of text about inputs and outputs, then the ONNX graph.

`write_plan` makes one of a graph; the Python stand-in (host_cuda.py) and the C++ one (fake_nvinfer.cpp) read it and let
ONNX Runtime compute. The only open axis of an output is the number that an open axis of an input has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

MAGIC = b"FAKE TENSORRT PLAN\n"
TYPES = {1: "FLOAT", 2: "UINT8", 3: "INT8", 6: "INT32", 7: "INT64", 9: "BOOL", 10: "HALF"}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class FakeTensor:
    """One input (with its profile) or output of a plan; -1 is an open axis."""

    name: str
    dtype: str
    shape: Shape
    profile: tuple[Shape, Shape, Shape] | None = None


@dataclass(frozen=True)
class FakePlan:
    """What a plan holds; `scratch` is a fixed number of bytes and one for each of the open number."""

    tensors: tuple[FakeTensor, ...]
    scratch: tuple[int, int]
    shares_profiles: bool
    model: bytes

    @property
    def scratch_bytes(self) -> int:
        """Most scratch memory of a context: at the largest open number of the profile."""
        largest = [tensor.profile[2] for tensor in self.tensors if tensor.profile]
        open_number = max((shape[0] for shape in largest), default=1)
        return self.scratch[0] + self.scratch[1] * open_number


def write_plan(
    model: onnx.ModelProto,
    profiles: Mapping[str, tuple[Shape, Shape, Shape]],
    scratch: tuple[int, int] = (4096, 1024),
    shares_profiles: bool = True,
) -> bytes:
    """Return the plan of a graph."""
    lines = [f"profiles {'shared' if shares_profiles else 'owned'}", f"scratch {scratch[0]} {scratch[1]}"]
    constants = {tensor.name for tensor in model.graph.initializer}
    for value in model.graph.input:
        if value.name in constants:
            continue
        shape = shape_of(value)
        smallest, usual, largest = profiles.get(value.name, (shape, shape, shape))
        lines.append(
            f"input {value.name} {type_of(value)} {_text(shape)} {_text(smallest)} {_text(usual)} {_text(largest)}"
        )
    lines += [f"output {value.name} {type_of(value)} {_text(shape_of(value))}" for value in model.graph.output]
    content = model.SerializeToString()
    lines.append(f"bytes {len(content)}")
    return MAGIC + "\n".join(lines).encode() + b"\nonnx\n" + content


def write_tensors(rows: list[tuple[str, Shape]], opened: str, most: int, scratch: tuple[int, int]) -> bytes:
    """Return a plan that can be opened and not run: names and shapes; `opened` and those before it are its inputs."""
    lines = [f"scratch {scratch[0]} {scratch[1]}"]
    names = [name for name, _ in rows]
    for index, (name, shape) in enumerate(rows):
        shapes = [tuple(n if size == -1 else size for size in shape) for n in (1, most, most)]
        profile = " ".join(map(_text, shapes)) if index <= names.index(opened) else ""
        lines.append(f"{'input' if profile else 'output'} {name} FLOAT {_text(shape)} {profile}".rstrip())
    return MAGIC + "\n".join(lines).encode() + b"\nonnx\n"


def read_plan(content: bytes) -> FakePlan | None:
    """Return what a plan holds, or None where it is not a whole one."""
    if not content.startswith(MAGIC) or b"\nonnx\n" not in content:
        return None
    head, _, model = content.removeprefix(MAGIC).partition(b"\nonnx\n")
    tensors, scratch, shared = [], (0, 0), True
    for line in head.decode().splitlines():
        kind, *words = line.split(" ")
        if kind == "profiles":
            shared = words[0] == "shared"
        elif kind == "scratch":
            scratch = (int(words[0]), int(words[1]))
        elif kind == "bytes":
            if len(model) != int(words[0]):
                return None
        else:
            shapes = [_shape(word) for word in words[2:]]
            profile = (shapes[1], shapes[2], shapes[3]) if kind == "input" else None
            tensors.append(FakeTensor(words[0], words[1], shapes[0], profile))
    return FakePlan(tuple(tensors), scratch, shared, model)


def shape_of(value: onnx.ValueInfoProto) -> Shape:
    """Return the shape of a graph's input or output, -1 for an open axis."""
    return tuple(axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim)


def type_of(value: onnx.ValueInfoProto) -> str:
    """Return TensorRT's word for the type of a graph's input or output."""
    return TYPES[value.type.tensor_type.elem_type]


def _text(shape: Shape) -> str:
    return ",".join(map(str, shape)) or "scalar"


def _shape(text: str) -> Shape:
    return () if text == "scalar" else tuple(int(size) for size in text.split(","))
