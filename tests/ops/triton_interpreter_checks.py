"""Run by test_triton.py in a process with TRITON_INTERPRET=1: every kernel against the reference, with guard bands.

The interpreter does not check bounds: outputs are therefore carved out of larger buffers filled with a sentinel, which
must still be there afterwards, and start as NaN, which must be gone.
"""

import sys
from contextlib import nullcontext

import torch

from edgekd.ops import _triton, haar_dwt2_ref
from edgekd.ops._reference import BandWeights, loss, loss_gradient, synthesis

SENTINEL, GUARD = 777.0, 4096
CASES = [
    (torch.float32, (1, 2, 6, 16)),
    (torch.float32, (2, 3, 10, 20)),
    (torch.float32, (1, 2, 7, 9)),
    (torch.float32, (2, 1, 34, 40)),
    (torch.float16, (1, 2, 4, 80)),
    (torch.float16, (1, 2, 5, 6)),
    (torch.bfloat16, (1, 2, 6, 5)),
]
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
guarded = []


def new_guarded(*shape, dtype):
    shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
    n = int(torch.Size(shape).numel())
    buffer = torch.full((n + 2 * GUARD,), SENTINEL, dtype=dtype)
    buffer[GUARD : GUARD + n] = float("nan")
    guarded.append((buffer, n))
    return buffer[GUARD : GUARD + n].view(shape)


def check_guards():
    for buffer, n in guarded:
        before, after = buffer[:GUARD], buffer[GUARD + n :]
        assert (before == SENTINEL).all() and (after == SENTINEL).all(), "a store went past the end"
        assert not buffer[GUARD : GUARD + n].isnan().any(), "an output was not written"
    guarded.clear()


def relative_error(ours, truth):
    return ((ours.double() - truth.double()).abs().max() / truth.double().abs().max()).item()


def is_same(ours, truth):
    """The same bits; the interpreter truncates to bfloat16 where the device rounds to nearest."""
    if ours.dtype == torch.bfloat16:
        return relative_error(ours, truth) <= ROUNDING[torch.bfloat16]
    return torch.equal(ours, truth)


def check_case(dtype, shape):
    height, width = shape[2:]
    x, teacher = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    for replicate in (False, True):
        bands = _triton.analysis(x, replicate)
        for ours, truth in zip(bands, haar_dwt2_ref(x, "symmetric" if replicate else "zero"), strict=True):
            assert is_same(ours, truth), "analysis"
        back = _triton.synthesis(bands, height, width, replicate)
        wide = synthesis([band.float() for band in bands], height, width, replicate).to(dtype)
        assert is_same(back, wide), "synthesis"
    weights, wide = BandWeights(0.3, 1.7), (x.double(), teacher.double())
    scale = 65536.0 if dtype == torch.float16 else 3.0
    for cell_weight in (None, torch.rand(shape[0], 1, (height + 1) // 2, (width + 1) // 2) + 0.5):
        value, _ = _triton.loss(x, teacher, cell_weight, weights, False)
        assert relative_error(value, loss(*wide, cell_weight, weights, False)[0]) <= 1e-5, "loss"
        gradient = _triton.loss_gradient(torch.tensor(scale), x, teacher, cell_weight, weights)
        truth = loss_gradient(torch.tensor(scale, dtype=torch.float64), *wide, cell_weight, weights)
        assert relative_error(gradient, truth) <= ROUNDING[dtype], "gradient"
    check_guards()


def main():
    torch.manual_seed(0)
    plain_empty, plain_empty_like, plain_new_empty = torch.empty, torch.empty_like, torch.Tensor.new_empty
    torch.empty = lambda size, dtype=torch.float32, device=None: new_guarded(*size, dtype=dtype)
    torch.empty_like = lambda x: new_guarded(*x.shape, dtype=x.dtype)

    def new_empty(x, *shape, **options):  # Triton itself asks for empty tensors on a device
        if options or shape == (0,):
            return plain_new_empty(x, *shape, **options)
        return new_guarded(*shape, dtype=x.dtype)

    torch.Tensor.new_empty = new_empty
    launches = []
    torch.cuda.device_of = lambda x: launches.append(x) or nullcontext()
    try:
        for dtype, shape in CASES:
            check_case(dtype, shape)
            assert len(launches) == 8, "every kernel is launched on the device of its tensors, current or not"
            launches.clear()
    finally:
        torch.empty, torch.empty_like, torch.Tensor.new_empty = plain_empty, plain_empty_like, plain_new_empty
    print(len(CASES), "cases")


if __name__ == "__main__":
    sys.exit(main())
