"""A TinySAM with a spectral adapter: from a checkpoint to ONNX without a wavelet, equal to PyTorch, and to a plan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from edgekd.deploy.export import ExportOptions, export_graph, graphs_of
from edgekd.deploy.onnx_edit import fix_shapes
from edgekd.deploy.tensorrt_build import PlanOptions, build_plan
from edgekd.model_set import Source
from edgekd.models.spectral_adapter import SpectralAdapter, attach_adapters
from edgekd.models.tinysam import ADAPTED, TinySam, load_tinysam, save_tinysam
from edgekd.models.tinyvit import EMBEDDING_CHANNELS

SOURCE = Source(name="adapted", sha256="0", licence="none")


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> TinySam:
    """An adapter that moves the embeddings, after a round through a checkpoint."""
    torch.manual_seed(0)
    model = TinySam().eval()
    attach_adapters(model, ADAPTED, EMBEDDING_CHANNELS, rank=8)
    for module in model.modules():
        if isinstance(module, SpectralAdapter):
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.1)
    path = tmp_path_factory.mktemp("adapted") / "best.pt"
    save_tinysam(model, path)
    return load_tinysam(path)


@pytest.fixture(scope="module")
def encoder_path(adapted: TinySam, tmp_path_factory: pytest.TempPathFactory) -> Path:
    ultralytics = pytest.importorskip("ultralytics")
    detector = ultralytics.YOLO("yolo11n.yaml").model.eval()
    path = tmp_path_factory.mktemp("adapted") / "encoder.onnx"
    graphs = graphs_of(detector, adapted, ExportOptions(encoder_px=(256, 256)))
    export_graph(graphs["encoder"], path, SOURCE, half=False)
    return path


def test_the_adapter_is_part_of_the_graph_and_equals_pytorch(adapted: TinySam, encoder_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    image = torch.randn(1, 3, 192, 320, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = adapted.image_encoder(image).numpy()
        bare = adapted.image_encoder.neck.base if hasattr(adapted.image_encoder.neck, "base") else None
        assert bare is not None, "the checkpoint brought its adapter back"
        assert (adapted.image_encoder.neck.adapter(torch.ones(1, 256, 4, 4)) - 1).abs().max() > 1e-2
    session = onnxruntime.InferenceSession(str(encoder_path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": image.numpy()})
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_no_wavelet_node_is_left(encoder_path: Path) -> None:
    graph = onnx.load(encoder_path).graph
    assert {node.domain for node in graph.node} <= {""}
    assert not any("haar" in node.op_type.lower() or "dwt" in node.op_type.lower() for node in graph.node)
    assert any(node.op_type == "ConvTranspose" for node in graph.node)  # the adapter's synthesis


@pytest.mark.tensorrt
def test_the_adapted_encoder_builds_with_tensorrt_rtx(encoder_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")
    fixed = tmp_path / "fixed.onnx"
    onnx.save(fix_shapes(onnx.load(encoder_path), {"image": (1, 3, 256, 256)}), fixed)
    assert build_plan(fixed, PlanOptions(True, "8.9", "fp16"))[:4] == b"vtrt"
