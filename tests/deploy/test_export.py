"""Networks to ONNX: equal to PyTorch, open sizes work, and fp16 storage halves the file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from edgekd.deploy.export import (  # noqa: E402
    ExportOptions,
    Graph,
    check_outputs,
    export_graph,
    export_networks,
    graphs_of,
)
from edgekd.deploy.onnx_edit import fix_shapes, half_storage, no_forbidden_operators  # noqa: E402
from edgekd.errors import ModelError  # noqa: E402
from edgekd.model_set import OnnxStage, Source  # noqa: E402
from edgekd.models.tinysam import TinySam  # noqa: E402

SOURCE = Source(name="random", sha256="0", licence="none")


class Exported(NamedTuple):
    """A graph, its file, and what the model set says of it."""

    graph: Graph
    path: Path
    stage: OnnxStage


@pytest.fixture(scope="module")
def detector() -> torch.nn.Module:
    tasks = pytest.importorskip("ultralytics.nn.tasks")
    torch.manual_seed(0)
    model = tasks.DetectionModel("yolo11n.yaml", nc=4, verbose=False).eval()
    model.names = {0: "a", 1: "b", 2: "c", 3: "d"}
    return model


@pytest.fixture(scope="module")
def exported(detector: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The detector's graph and the file that it became; an export takes most of the time of these tests."""
    graph = graphs_of(detector, TinySam().eval(), ExportOptions(detector_px=(96, 64), encoder_px=(64, 64)))["detector"]
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    return Exported(graph, path, export_graph(graph, path, SOURCE, half=False))


@pytest.mark.parametrize(("largest", "difference", "passes"), [
    (1.0, 1.0e-4, True), (1.0, 1.2e-4, False), (20.0, 2.9e-4, True), (20.0, 3.1e-4, False), (1.0, float("nan"), False),
])  # fmt: skip
def test_a_graph_may_differ_by_rounding_alone(largest: float, difference: float, passes: bool) -> None:
    expected = np.array([largest, 0.5], np.float32)
    outputs = {"logits": (expected + np.array([0, difference], np.float32), expected)}
    if passes:
        check_outputs(outputs, "detector")
        return
    with pytest.raises(ModelError, match="logits of the exported detector differs from PyTorch by"):
        check_outputs(outputs, "detector")


def test_detector_graph_equals_pytorch_at_another_size(exported: Exported) -> None:
    graph, path, stage = exported
    assert stage.max_abs_difference is not None and stage.max_abs_difference <= 1e-4
    picture = torch.rand(1, 3, 160, 128)
    with torch.no_grad():
        expected = graph.module(picture)
    session = onnxruntime.InferenceSession(str(path))
    got = session.run(["box_logits", "class_logits"], {"images": picture.numpy()})
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=1e-4)
    fixed = fix_shapes(onnx.load(path), {"images": (1, 3, 160, 128)})
    assert [axis.dim_value for axis in fixed.graph.output[0].type.tensor_type.shape.dim] == [1, 64, 420]
    assert not {"Shape", "Range"} & {node.op_type for node in fixed.graph.node}


def test_decoder_takes_any_number_of_boxes_and_both_prompts(detector: torch.nn.Module, tmp_path: Path) -> None:
    for prompt in ("box", "box+centre"):
        options = ExportOptions(encoder_px=(96, 64), prompt=prompt)
        graph = graphs_of(detector, TinySam().eval(), options)["decoder"]
        stage = export_graph(graph, tmp_path / "decoder.onnx", SOURCE, half=False)
        assert stage.max_abs_difference is not None and stage.max_abs_difference <= 1e-4
        model = onnx.load(tmp_path / "decoder.onnx")
        no_forbidden_operators(model, "decoder")
        session = onnxruntime.InferenceSession(str(tmp_path / "decoder.onnx"))
        embeddings, boxes = torch.randn(1, 256, 8, 8), torch.rand(7, 4) * 60
        with torch.no_grad():
            expected = graph.module(embeddings, boxes)
        feeds = {"image_embeddings": embeddings.numpy(), "boxes": boxes.numpy()}
        for a, b in zip(session.run(["low_res_masks", "predicted_iou"], feeds), expected, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=1e-4)


def test_fp16_storage_halves_the_file_and_keeps_the_outputs(exported: Exported, tmp_path: Path) -> None:
    half_path, model = tmp_path / "half.onnx", onnx.load(exported.path)
    half_storage(model)
    onnx.save(model, half_path)
    assert half_path.stat().st_size < 0.6 * exported.path.stat().st_size
    feeds = {"images": exported.graph.inputs[0].numpy()}
    full, halved = (onnxruntime.InferenceSession(str(path)).run(None, feeds) for path in (exported.path, half_path))
    scale = np.abs(full[0]).max()
    assert 0 < np.abs(full[0] - halved[0]).max() < 0.02 * scale


def test_graphs_that_tensorrt_cannot_build_are_refused() -> None:
    node = onnx.helper.make_node("OneHot", ["a", "b", "c"], ["d"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], []))
    with pytest.raises(ModelError, match="OneHot"):
        no_forbidden_operators(model, "decoder")


def test_sizes_that_do_not_fit_are_refused(detector: torch.nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="multiples of 32"):
        export_networks(detector, TinySam(), {}, tmp_path / "m", ExportOptions(encoder_px=(1000, 1000)))
    assert not (tmp_path / "m").exists()
