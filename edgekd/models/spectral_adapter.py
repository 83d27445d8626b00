"""The spectral adapter: a small residual branch on Haar bands, and the ordinary convolutions it folds into.

    y = x + IDWT( up_low g(s_low down_low cA),  up_high g(s_high down_high [cH, cV, cD]) ),  g = GELU

In: a map (N, C, H, W) with even H and W; out: the same shape. `down` maps bands to `rank` channels, `up` maps back and
starts at zero, so a fresh adapter changes no bit of the network. Because the transform and its inverse are linear,
`fold` turns the branch into one 2x2 stride-2 convolution and one 2x2 stride-2 transposed convolution, exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.ops import HaarBands, haar_dwt2, haar_idwt2
from edgekd.ops.fold import fold_into_convolution, haar_filters

N_DETAIL_BANDS = 3


class SpectralAdapter(nn.Module):
    """Low-rank paths for the approximation and for the three detail bands, each with a learned scale.

    channels=256 and rank=80 hold 165,026 parameters; three of them, one per pyramid level of SAM3, 495,078.
    """

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down_low = nn.Conv2d(channels, rank, 1)
        self.down_high = nn.Conv2d(N_DETAIL_BANDS * channels, rank, 1)
        self.up_low = nn.Conv2d(rank, channels, 1)
        self.up_high = nn.Conv2d(rank, N_DETAIL_BANDS * channels, 1)
        self.scale_low = nn.Parameter(torch.ones(()))
        self.scale_high = nn.Parameter(torch.ones(()))
        for up in (self.up_low, self.up_high):
            nn.init.zeros_(up.weight)
            nn.init.zeros_(up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), H and W even, to the same shape; identical to x while `up` is zero."""
        bands = haar_dwt2(x)
        low = self.up_low(F.gelu(self.scale_low * self.down_low(bands.approx)))
        high = self.up_high(F.gelu(self.scale_high * self.down_high(torch.cat(bands[1:], dim=1))))
        return x + haar_idwt2(HaarBands(low, *high.chunk(N_DETAIL_BANDS, dim=1)))

    def fold(self) -> FoldedAdapter:
        """The same function without a wavelet, for export."""
        rank, channels = self.down_low.weight.shape[:2]
        zeros = torch.zeros(rank, channels, 1, 1)
        low = torch.cat([self.scale_low * self.down_low.weight, zeros.repeat(1, N_DETAIL_BANDS, 1, 1)], dim=1)
        high = torch.cat([zeros, self.scale_high * self.down_high.weight], dim=1)
        folded = FoldedAdapter(channels, rank)
        with torch.no_grad():
            folded.analysis.weight.copy_(fold_into_convolution(torch.cat([low, high])))
            bias = [self.scale_low * self.down_low.bias, self.scale_high * self.down_high.bias]
            folded.analysis.bias.copy_(torch.cat(bias))
            weight, offset = self._synthesis(channels, rank)
            folded.synthesis.weight.copy_(weight)
            folded.offset.copy_(offset)
        return folded

    def _synthesis(self, channels: int, rank: int) -> tuple[Tensor, Tensor]:
        # The inverse puts value * filter into each 2x2 cell, so `up` followed by it is one transposed convolution.
        # The biases of the bands differ between the four pixels of a cell: a (C, 2, 2) pattern, not a channel bias.
        filters = haar_filters(self.up_low.weight)
        low = torch.einsum("cr,hw->rchw", self.up_low.weight[:, :, 0, 0], filters[0])
        up_high = self.up_high.weight[:, :, 0, 0].view(N_DETAIL_BANDS, channels, rank)
        high = torch.einsum("bcr,bhw->rchw", up_high, filters[1:])
        biases = torch.cat([self.up_low.bias, self.up_high.bias]).view(1 + N_DETAIL_BANDS, channels)
        return torch.cat([low, high]), torch.einsum("bc,bhw->chw", biases, filters)


class FoldedAdapter(nn.Module):
    """`SpectralAdapter` as Conv, GELU, ConvTranspose and Add; made by `SpectralAdapter.fold`."""

    offset: Tensor

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.analysis = nn.Conv2d(channels, 2 * rank, 2, stride=2)
        self.synthesis = nn.ConvTranspose2d(2 * rank, channels, 2, stride=2, bias=False)
        self.register_buffer("offset", torch.zeros(channels, 2, 2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W), H and W even, to the same shape."""
        branch = self.synthesis(F.gelu(self.analysis(x)))
        pattern = self.offset.repeat(1, x.shape[2] // 2, x.shape[3] // 2)
        return x + branch + pattern


class Adapted(nn.Module):
    """A module and the adapter on its output; parameter names gain `base.` and `adapter.`."""

    def __init__(self, base: nn.Module, adapter: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, x: Tensor) -> Tensor:
        """What `base` makes of x, adapted."""
        adapted: Tensor = self.adapter(self.base(x))
        return adapted


def attach_adapters(model: nn.Module, names: tuple[str, ...], channels: int, rank: int) -> None:
    """Wrap the named submodules, whose outputs are (N, channels, H, W), in `Adapted`; no output changes by a bit."""
    for name in names:
        _replace(model, name, Adapted(model.get_submodule(name), SpectralAdapter(channels, rank)))


def fold_adapters(model: nn.Module) -> int:
    """Replace every spectral adapter in `model` by its folded form; returns how many."""
    found = [name for name, module in model.named_modules() if isinstance(module, SpectralAdapter)]
    for name in found:
        adapter = model.get_submodule(name)
        assert isinstance(adapter, SpectralAdapter)
        _replace(model, name, adapter.fold().to(adapter.down_low.weight.dtype).eval())
    return len(found)


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    holder = model.get_submodule(parent)
    if isinstance(holder, nn.Sequential | nn.ModuleList):
        holder[int(child)] = module
    else:
        setattr(holder, child, module)
