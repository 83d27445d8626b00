"""Run in a process of its own, with a library built for sanitizers: every tail of a row, every way of writing."""

import itertools

import torch

from edgekd.ops import haar_dwt2, haar_idwt2, haar_weighted_mse
from edgekd.ops._cpu_build import find_cpu_library

SMALL = itertools.product((1, 6, 17), (*range(1, 50), 80))
LARGE = ((800, 80), (801, 80), (1201, 84))  # outputs go past the caches: from registers, with an odd edge, by a stage


def check(height, width, dtype, channels):
    x = torch.randn(1, channels, height, width).to(dtype)
    for mode in ("zero", "symmetric"):
        haar_idwt2(haar_dwt2(x, mode, "cpu"), (height, width), "cpu")
    cell_weight = torch.rand(1, 1, (height + 1) // 2, (width + 1) // 2)
    for weight in (None, cell_weight):
        student = torch.randn_like(x).requires_grad_()
        haar_weighted_mse(student, x, 0.5, 1.5, weight, "cpu").backward()


def main():
    for (height, width), dtype in itertools.product(SMALL, (torch.float32, torch.float16)):
        check(height, width, dtype, channels=3)
    for height, width in LARGE:
        check(height, width, torch.float32, channels=80)
    print(find_cpu_library())


if __name__ == "__main__":
    main()
