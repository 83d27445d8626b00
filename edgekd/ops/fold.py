"""The wavelet without a wavelet: exact rewrites of Haar layers as ordinary convolutions and pooling, for export.

An engine builder knows convolutions, not wavelets. With M the 4x4 Haar matrix (bands x pixels of a cell):

    bands, as a layer          = one grouped 2x2 convolution of stride 2        dwt2_as_convolution
    bands, scaled, k x k conv  = one dense 2k x 2k convolution of stride 2      fold_into_convolution
    s_low cA, s_high (cH, cV, cD), inverse
                               = s_high x + (s_low - s_high) up2(avgpool2(x))   scaled_bands

All hold for even sizes; dwt2_as_convolution pads an odd one. Bands side by side are band-major: channel index
band * C + c, the order of torch.cat(haar_dwt2(x), dim=1).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.ops._reference import HaarBands

HAAR_MATRIX = ((1, 1, 1, 1), (1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1))  # times 1/2: rows bands, columns pixels


def haar_filters(like: Tensor) -> Tensor:
    """Return the four 2x2 analysis filters (4, 2, 2) in the dtype and on the device of `like`."""
    return like.new_tensor(HAAR_MATRIX).view(4, 2, 2) / 2


def dwt2_as_convolution(x: Tensor, mode: str = "zero") -> HaarBands:
    """Transform x (N, C, H, W) with one grouped convolution; the same bands as haar_dwt2."""
    pad = (0, x.shape[3] % 2, 0, x.shape[2] % 2)
    if any(pad):
        x = F.pad(x, pad) if mode == "zero" else F.pad(x, pad, mode="replicate")
    channels = x.shape[1]
    filters = haar_filters(x).unsqueeze(1).repeat(channels, 1, 1, 1)  # a group's four outputs are neighbours
    cells = F.conv2d(x, filters, stride=2, groups=channels)
    n, _, h, w = cells.shape
    return HaarBands(*cells.view(n, channels, 4, h, w).unbind(2))


def idwt2_as_convolution(bands: HaarBands) -> Tensor:
    """Invert four bands (N, C, h, w) with one grouped transposed convolution: (N, C, 2h, 2w)."""
    n, channels, h, w = bands[0].shape
    cells = torch.stack(tuple(bands), dim=2).view(n, 4 * channels, h, w)
    filters = haar_filters(cells).unsqueeze(1).repeat(channels, 1, 1, 1)
    return F.conv_transpose2d(cells, filters, stride=2, groups=channels)


def fold_into_convolution(weight: Tensor, band_scale: Tensor | None = None) -> Tensor:
    """Fold transform, per-band scale and a k x k convolution into the weight of one convolution.

    weight: (O, 4 * C, k, k), applied to the band-major bands with padding p and stride 1. band_scale: (4, C) or None.
    Returns (O, C, 2k, 2k), to be applied to x (N, C, H, W), H and W even, with stride 2 and padding 2p.
    """
    out_channels, in_channels, k_high, k_wide = weight.shape
    if in_channels % 4:
        raise ValueError(f"weight has {in_channels} input channels, expected 4 bands times the channels of x.")
    channels = in_channels // 4
    by_band = weight.reshape(out_channels, 4, channels, k_high, k_wide)
    if band_scale is not None:
        if tuple(band_scale.shape) != (4, channels):
            raise ValueError(f"band_scale has shape {tuple(band_scale.shape)}, expected {(4, channels)}.")
        by_band = by_band * band_scale.view(1, 4, channels, 1, 1)
    dense = torch.einsum("obcij,bhw->ocihjw", by_band, haar_filters(weight))
    return dense.reshape(out_channels, channels, 2 * k_high, 2 * k_wide)


def scaled_bands(x: Tensor, scale_low: Tensor | float, scale_high: Tensor | float) -> Tensor:
    """Return the inverse of (scale_low * cA, scale_high * (cH, cV, cD)) of x (N, C, H, W) without any wavelet.

    A scale is a number or a tensor broadcast against x, such as (C, 1, 1). cA is twice the mean of a cell and carries
    back half of itself to each pixel, so what remains is a pooled map: scale_high x + (scale_low - scale_high) mean.
    H and W must be even.
    """
    if x.shape[-2] % 2 or x.shape[-1] % 2:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected even height and width.")
    mean = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0, mode="nearest")
    return scale_high * x + (scale_low - scale_high) * mean
