"""CPU engines come from bytes that were checked, and no graph runs for ever or reads other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import BundleError
from edgekd.runtime.engines.onnx_operators import operators_of
from edgekd.runtime.engines.onnxruntime import OnnxRuntimeEngine
from edgekd.runtime.engines.openvino import OpenVinoEngine

onnx = pytest.importorskip("onnx")
TRIPLE = """<ir_version: 8, opset_import: ["" : 18]>
graph (float[2] x) => (float[2] y) <float[2] w = {3.0, 3.0}> { y = Mul(x, w) }"""
ENDLESS = """<ir_version: 8, opset_import: ["" : 18]>
graph (float[2] x, int64 n, bool go) => (float[2] y) {
  y = Loop <body = inner (int64 i, bool c, float[2] a) => (bool d, float[2] b) {
    d = Identity(c)
    b = Add(a, a)
  }> (n, go, x)
}"""


def external() -> bytes:
    model = onnx.parser.parse_model(TRIPLE)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="/etc/passwd")
    return bytes(model.SerializeToString())


def test_operators_are_found_in_subgraphs_too() -> None:
    assert operators_of(onnx.parser.parse_model(TRIPLE).SerializeToString()) == {"Mul"}
    assert operators_of(onnx.parser.parse_model(ENDLESS).SerializeToString()) == {"Loop", "Identity", "Add"}
    assert "external data" in operators_of(external())
    for damaged in (b"not onnx", TRIPLE.encode(), external()[:-20]):
        with pytest.raises(ValueError, match=r"field|number"):
            operators_of(damaged)


def test_endless_graphs_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    endless = onnx.parser.parse_model(ENDLESS).SerializeToString()
    for content, words in ((endless, "Loop"), (external(), "external data"), (b"no graph", "cannot load")):
        with pytest.raises(BundleError, match=words) as caught:
            OnnxRuntimeEngine.open(path, 1, (content,))
        assert "\n" not in str(caught.value)
    pytest.importorskip("openvino")
    path.write_bytes(endless)
    with pytest.raises(BundleError, match="the operator Loop"):
        OpenVinoEngine.open(path, "fp32", 1)


def test_engines_need_no_file_when_the_bytes_are_there(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    content = onnx.parser.parse_model(TRIPLE).SerializeToString()
    x = np.array([1, 2], np.float32)
    absent = tmp_path / "absent"
    assert OnnxRuntimeEngine.open(absent, 1, (content,)).infer({"x": x})["y"].tolist() == [3, 6]
    openvino.save_model(openvino.Core().read_model(content), tmp_path / "a.xml", compress_to_fp16=False)
    files = (tmp_path / "a.xml").read_bytes(), (tmp_path / "a.bin").read_bytes()
    assert OpenVinoEngine.open(absent, "fp32", 1, files).infer({"x": x})["y"].tolist() == [3, 6]
    with pytest.raises(BundleError, match="cannot load"):
        OpenVinoEngine.open(tmp_path / "a.xml", "fp32", 1, files[:1])
    with pytest.raises(BundleError, match="cannot run a network"):
        OnnxRuntimeEngine.open(absent, 1, (content,)).infer({"x": x[:1]})
