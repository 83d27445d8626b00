"""The operators of an ONNX file, read without the onnx library: bytes in, operator names out.

Only the few fields on the way are walked (protocol buffers: a tag, a type, a value). A bundle is data: a graph that
loops for as long as it likes, or reads other files, is not run, and a weight that is NaN is found here, because a ReLU
behind it would hide it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # ModelProto.graph, GraphProto.node and .initializer
_OP_TYPE, _ATTRIBUTE, _SUBGRAPHS = 4, 5, (6, 11)  # NodeProto.op_type and .attribute, AttributeProto.g and .graphs
_TENSOR = 5  # AttributeProto.t
_DATA_TYPE, _FLOAT_DATA, _RAW_DATA, _EXTERNAL_DATA = 2, 4, 9, 13  # of TensorProto
_FLOATS: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
}  # TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def operators_of(model: bytes) -> set[str]:
    """Return the operator types of all nodes.

    `external data` stands for weights in another file, `NaN` for a weight that is NaN.

    Raises:
        ValueError: the bytes are not those of an ONNX file.
    """
    found: set[str] = set()
    for field, graph in _fields(memoryview(model)):
        if field == _GRAPH and isinstance(graph, memoryview):
            _walk(graph, found)
    return found


def _walk(graph: memoryview, found: set[str]) -> None:
    for field, content in _parts(graph):
        if field == _INITIALIZER:
            _look_at_weights(content, found)
        if field != _NODE:
            continue
        for inner, value in _parts(content):
            if inner == _OP_TYPE:
                found.add(bytes(value).decode("utf-8", "replace"))
            elif inner == _ATTRIBUTE:
                _look_at_attribute(value, found)


def _look_at_attribute(attribute: memoryview, found: set[str]) -> None:
    for field, content in _parts(attribute):
        if field in _SUBGRAPHS:
            _walk(content, found)
        elif field == _TENSOR:
            _look_at_weights(content, found)


def _look_at_weights(tensor: memoryview, found: set[str]) -> None:
    fields = dict(_fields(tensor))
    if _EXTERNAL_DATA in fields:
        found.add("external data")
    kind = fields.get(_DATA_TYPE)
    dtype = _FLOATS.get(kind) if isinstance(kind, int) else None
    for field in (_RAW_DATA, _FLOAT_DATA):
        content = fields.get(field)
        if dtype is None or not isinstance(content, memoryview):
            continue
        if len(content) % dtype.itemsize:
            raise ValueError("weights of a length that does not fit their type")
        if np.isnan(np.frombuffer(content, dtype)).any():
            found.add("NaN")


def _parts(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (number, content) of the fields that have a length."""
    for field, content in _fields(message):
        if isinstance(content, memoryview):
            yield field, content


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Yield (number, content) of fields that have a length, (number, value) of whole numbers; others are skipped."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind in (_FIXED64, _FIXED32):
            position += 8 if kind == _FIXED64 else 4
            continue
        if kind != _BYTES:
            raise ValueError(f"a field of the unknown type {kind}")
        length, position = _varint(message, position)
        if position + length > len(message):
            raise ValueError("a field that ends behind the file")
        yield tag >> 3, message[position : position + length]
        position += length


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise ValueError("a number that does not end")
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
