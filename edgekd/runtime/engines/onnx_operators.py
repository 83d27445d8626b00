"""The operators of an ONNX file, read without the onnx library: bytes in, operator names out.

Only the few fields on the way are walked (protocol buffers: a tag, a type, a value); weights are skipped by their
length. A bundle is data: a graph that loops for as long as it likes, or reads other files, is not run.
"""

from __future__ import annotations

from collections.abc import Iterator

_GRAPH, _NODE, _INITIALIZER = 7, 1, 5  # ModelProto.graph, GraphProto.node and .initializer
_OP_TYPE, _ATTRIBUTE, _SUBGRAPHS = 4, 5, (6, 11)  # NodeProto.op_type and .attribute, AttributeProto.g and .graphs
_EXTERNAL_DATA = 13  # TensorProto.external_data
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def operators_of(model: bytes) -> set[str]:
    """Return the operator types of all nodes; `external data` stands for weights in another file.

    Raises:
        ValueError: the bytes are not those of an ONNX file.
    """
    found: set[str] = set()
    for field, graph in _fields(memoryview(model)):
        if field == _GRAPH:
            _walk(graph, found)
    return found


def _walk(graph: memoryview, found: set[str]) -> None:
    for field, content in _fields(graph):
        if field == _INITIALIZER and any(inner == _EXTERNAL_DATA for inner, _ in _fields(content)):
            found.add("external data")
        if field != _NODE:
            continue
        for inner, value in _fields(content):
            if inner == _OP_TYPE:
                found.add(bytes(value).decode("utf-8", "replace"))
            elif inner == _ATTRIBUTE:
                for part, subgraph in _fields(value):
                    if part in _SUBGRAPHS:
                        _walk(subgraph, found)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (number, content) of the fields that have a length; the others are skipped."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == _VARINT:
            _, position = _varint(message, position)
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
