"""Haar transform, inverse and fused band loss: tensors in, tensors out, one fast implementation per device."""

from edgekd.ops._dispatch import Backend, resolve_backend
from edgekd.ops._reference import HaarBands, haar_dwt2_ref, haar_idwt2_ref, haar_weighted_mse_ref
from edgekd.ops.haar import haar_dwt2, haar_idwt2, haar_weighted_mse

__all__ = [
    "Backend",
    "HaarBands",
    "haar_dwt2",
    "haar_dwt2_ref",
    "haar_idwt2",
    "haar_idwt2_ref",
    "haar_weighted_mse",
    "haar_weighted_mse_ref",
    "resolve_backend",
]
