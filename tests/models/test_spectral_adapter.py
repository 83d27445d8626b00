"""The spectral adapter: nothing at the start, ordinary convolutions at the end."""

from pathlib import Path

import onnx
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from edgekd.models.spectral_adapter import Adapted, SpectralAdapter, attach_adapters, fold_adapters

CONVOLUTION_FORM = {"Conv", "ConvTranspose", "Add", "Mul", "Div", "Erf", "Constant", "Gelu", "Tile", "Expand"}


def trained(channels: int, rank: int) -> SpectralAdapter:
    adapter = SpectralAdapter(channels, rank)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.3)
    return adapter


def test_a_fresh_adapter_changes_no_bit() -> None:
    x = torch.randn(2, 8, 6, 10)
    assert torch.equal(SpectralAdapter(8, 4)(x), x)


def test_a_fresh_adapter_learns() -> None:
    adapter = SpectralAdapter(8, 4)
    adapter(torch.randn(1, 8, 4, 4)).square().sum().backward()
    assert adapter.up_low.weight.grad is not None and adapter.up_low.weight.grad.abs().max() > 0
    assert adapter.up_high.weight.grad is not None and adapter.up_high.weight.grad.abs().max() > 0


def test_parameters_of_the_released_size() -> None:
    assert sum(p.numel() for p in SpectralAdapter(256, 80).parameters()) == 165_026


@settings(deadline=None, max_examples=20)
@given(h=st.integers(1, 6), w=st.integers(1, 6), channels=st.integers(1, 9), rank=st.integers(1, 5))
def test_folding_is_exact(h: int, w: int, channels: int, rank: int) -> None:
    torch.manual_seed(h * 100 + w)
    adapter, x = trained(channels, rank), torch.randn(2, channels, 2 * h, 2 * w)
    assert (adapter(x) - x).abs().max() > 1e-3
    torch.testing.assert_close(adapter.fold()(x), adapter(x), rtol=0, atol=1e-5)


def test_folding_a_network_leaves_convolutions_only(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)).eval()
    attach_adapters(model, ("0", "1"), channels=8, rank=2)
    assert isinstance(model[0], Adapted)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 8, 8)
    expected = model(x)
    assert fold_adapters(model) == 2
    assert not any(isinstance(module, SpectralAdapter) for module in model.modules())
    torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5)
    file = tmp_path / "folded.onnx"
    torch.onnx.export(model, (x,), file, dynamo=True, opset_version=18, external_data=False, verbose=False)
    nodes = {node.op_type for node in onnx.load(file).graph.node}
    assert nodes <= CONVOLUTION_FORM, nodes
