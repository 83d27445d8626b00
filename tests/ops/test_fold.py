"""Folding: every rewrite equals the wavelet it replaces, and an exported graph has no wavelet left."""

import pytest
import torch
import torch.nn.functional as F

from edgekd.ops import HaarBands, haar_dwt2, haar_dwt2_ref, haar_idwt2_ref
from edgekd.ops.fold import dwt2_as_convolution, fold_into_convolution, idwt2_as_convolution, scaled_bands


@pytest.mark.parametrize("mode", ["zero", "symmetric", "periodization"])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (1, 1)])
def test_convolution_is_the_transform(size, mode):
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    bands = dwt2_as_convolution(x, mode)
    for ours, truth in zip(bands, haar_dwt2_ref(x, mode), strict=True):
        torch.testing.assert_close(ours, truth)
    torch.testing.assert_close(idwt2_as_convolution(bands)[..., : size[0], : size[1]], x)


@pytest.mark.parametrize(("kernel", "padding"), [(1, 0), (3, 1), (5, 2)])
def test_transform_scale_and_convolution_fold_into_one(kernel, padding):
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    weight = torch.randn(5, 12, kernel, kernel, dtype=torch.float64)
    scale = torch.rand(4, 3, dtype=torch.float64)
    bands = torch.cat([band * s.view(1, 3, 1, 1) for band, s in zip(haar_dwt2_ref(x), scale, strict=True)], dim=1)
    truth = F.conv2d(bands, weight, padding=padding)
    folded = F.conv2d(x, fold_into_convolution(weight, scale), stride=2, padding=2 * padding)
    torch.testing.assert_close(folded, truth)


def test_scaled_bands_are_a_pooled_map():
    x = torch.randn(2, 3, 8, 10, dtype=torch.float64)
    low, high = torch.rand(3, 1, 1, dtype=torch.float64), torch.rand(3, 1, 1, dtype=torch.float64)
    approx, *details = haar_dwt2_ref(x)
    truth = haar_idwt2_ref(HaarBands(low * approx, *(high * band for band in details)))
    torch.testing.assert_close(scaled_bands(x, low, high), truth)


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="weight has 6 input channels"):
        fold_into_convolution(torch.zeros(1, 6, 1, 1))
    with pytest.raises(ValueError, match=r"band_scale has shape \(3, 2\), expected \(4, 2\)"):
        fold_into_convolution(torch.zeros(1, 8, 1, 1), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="expected even height and width"):
        scaled_bands(torch.zeros(1, 1, 3, 4), 1.0, 1.0)


class Adapter(torch.nn.Module):
    """Haar bands, scaled and mixed: what a spectral adapter does."""

    def __init__(self):
        super().__init__()
        self.mix = torch.nn.Conv2d(12, 5, 3, padding=1)

    def forward(self, x):
        return self.mix(torch.cat(haar_dwt2(x), dim=1))


@pytest.mark.filterwarnings("ignore")  # the exporter's own warnings
@pytest.mark.parametrize("dynamo", [False, True])
def test_export_has_only_ordinary_nodes(dynamo, tmp_path):
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model, x, path = Adapter().eval(), torch.randn(1, 3, 8, 10), tmp_path / "adapter.onnx"
    if dynamo:
        pytest.importorskip("onnxscript")
    with torch.no_grad():
        torch.onnx.export(model, (x,), str(path), dynamo=dynamo, opset_version=18, verbose=False)
        truth = model(x)
    nodes = {(node.domain, node.op_type) for node in onnx.load(path).graph.node}
    assert {domain for domain, _ in nodes} == {""}
    assert ("", "Conv") in nodes
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ours = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(ours), truth, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # the exporter's own warnings
@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_program_has_only_ordinary_operators(strict):
    model, x = Adapter().eval(), torch.randn(1, 3, 8, 10)
    program = torch.export.export(model, (x,), strict=strict)
    operators = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert operators
    assert not any("edgekd" in operator for operator in operators)
    torch.testing.assert_close(program.module()(x), model(x), rtol=1e-5, atol=1e-5)
