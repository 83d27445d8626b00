"""Small edits of ONNX graphs: weights stored as fp16, open sizes fixed, operators that no engine can build refused."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.errors import ModelError

# TensorRT 8 and 10 turn these into shape tensors that their builder rejects (see the decoder exports of NanoSAM).
FORBIDDEN_OPERATORS = ("OneHot", "NonZero", "Loop", "If")
MAX_FIXED_ERROR = 1e-5
"""Root mean square of what fixing the sizes may change, over that of the outputs; rounding makes some 1e-7."""

_MIN_ELEMENTS = 256


def no_forbidden_operators(model: onnx.ModelProto, name: str) -> None:
    """Check that the graph holds none of `FORBIDDEN_OPERATORS`.

    Raises:
        ModelError: it holds one.
    """
    found = sorted({node.op_type for node in model.graph.node} & set(FORBIDDEN_OPERATORS))
    if found:
        raise ModelError(f"the exported {name} contains {', '.join(found)}, which TensorRT cannot build; report it")


def half_storage(model: onnx.ModelProto) -> None:
    """Store large float32 weights as fp16 behind a Cast, in place; every runtime folds the Cast when it loads."""
    casts = []
    for initializer in model.graph.initializer:
        if initializer.data_type != TensorProto.FLOAT or np.prod(initializer.dims) < _MIN_ELEMENTS:
            continue
        name = initializer.name
        half = numpy_helper.from_array(numpy_helper.to_array(initializer).astype(np.float16), f"{name}_fp16")
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
        initializer.CopyFrom(half)
    stored = {cast.output[0] for cast in casts}
    kept = [value for value in model.graph.value_info if value.name not in stored]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)


def fix_shapes(model: onnx.ModelProto, shapes: Mapping[str, tuple[int | str, ...]]) -> onnx.ModelProto:
    """Return the graph with the inputs' open axes replaced by the given numbers and everything that follows folded.

    Args:
        model: left unchanged.
        shapes: input name -> shape; a string keeps that axis open.
    """
    from onnxsim import simplify

    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    for value in fixed.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            if isinstance(size, int):
                axis.dim_value = size
            else:
                axis.dim_param = size
    del fixed.graph.value_info[:]
    for output in fixed.graph.output:
        for axis in output.type.tensor_type.shape.dim:
            axis.Clear()
    # Its optimizations fuse attention into operators of other domains, which TensorRT and OpenVINO cannot read.
    with _native_output_dropped():
        simplified: onnx.ModelProto
        simplified, _ = simplify(fixed, check_n=0, perform_optimization=False)
    if not _has_open_axis(shapes):
        _check_same_outputs(fixed, simplified)
    return simplified


def _check_same_outputs(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    """Compare two graphs on random inputs, relative to the size of the outputs.

    onnxsim's own check takes absolute differences over 1e-5 for changes, which rounding alone makes in a deep network.
    """
    import onnxruntime

    generator = np.random.default_rng(0)
    sessions = [
        onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        for graph in (model, other)
    ]
    feeds = {value.name: generator.random(value.shape, np.float32) for value in sessions[1].get_inputs()}
    for a, b in zip(*(session.run(None, feeds) for session in sessions), strict=True):
        error = float(np.sqrt(np.mean(np.square(a - b, dtype=np.float64))))
        if not error <= MAX_FIXED_ERROR * float(np.sqrt(np.mean(np.square(a, dtype=np.float64)))):
            raise ModelError("the graph changed its outputs when its sizes were fixed; report it with the model's name")


def shapes_of_values(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Return the shape of every input and output of a graph: numbers, and names of open axes."""
    return {
        value.name: tuple(axis.dim_value or axis.dim_param for axis in value.type.tensor_type.shape.dim)
        for value in [*model.graph.input, *model.graph.output]
    }


@contextmanager
def _native_output_dropped() -> Iterator[None]:
    """Drop what C++ code prints: onnxsim names every node that depends on an open axis, a page for the decoder."""
    sys.stdout.flush()
    sys.stderr.flush()
    with open(os.devnull, "w") as nowhere:
        kept = os.dup(1), os.dup(2)
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        for number, handle in enumerate(kept, start=1):
            os.dup2(handle, number)
            os.close(handle)


def _has_open_axis(shapes: Mapping[str, tuple[int | str, ...]]) -> bool:
    return any(isinstance(size, str) for shape in shapes.values() for size in shape)
