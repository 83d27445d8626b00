"""The CPU library itself: nothing is written beside an output, and large outputs that go past the caches are whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from edgekd.environment import describe_machine
from edgekd.ops import _cpu as cpu
from edgekd.ops import (
    _cpu_build,
    haar_dwt2,
    haar_dwt2_ref,
    haar_idwt2,
    haar_idwt2_ref,
    haar_weighted_mse,
    haar_weighted_mse_ref,
)
from edgekd.ops._cpu_build import compile_cpu_library, find_compiler, find_cpu_library

GUARD, SENTINEL = 64, 12345.0
# Odd ones last: a wild store there hits the heap.
SIZES = [
    *((2, 6), (10, 12), (6, 20), (20, 26), (40, 34), (8, 40), (4, 48), (4, 66)),
    *((22, 20), (10, 40), (14, 80)),  # widths that the compiler knows, with rows left over or not
    *((23, 20), (11, 40), (7, 80), (7, 9), (1, 1)),
]
# Over the 32 MiB of maps from which outputs go past the caches: rows of whole lines of 64 bytes, the same with an odd
# edge, rows of parts of lines.
LARGE = [(1, 800, 80, 80), (1, 800, 79, 80), (1, 1200, 90, 84)]


@pytest.fixture(autouse=True)
def library(kernel_cache):
    if find_cpu_library() is None:
        pytest.skip("no C++ compiler on this machine")
    return cpu.library()


class Guarded:
    """Room for float32 values between two bands of sentinels."""

    def __init__(self, n_elements):
        self.room = torch.full((n_elements + 2 * GUARD,), SENTINEL)
        self.values = self.room[GUARD:-GUARD]

    def intact(self):
        return bool((self.room[:GUARD] == SENTINEL).all() and (self.room[-GUARD:] == SENTINEL).all())


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_written_beside_the_bands(library, size):
    x = torch.randn(2, 3, *size)
    expected = haar_dwt2_ref(x)
    bands = [Guarded(band.numel()) for band in expected]
    shape = cpu.shape_pointer(x.shape, False, 2)
    library.edgekd_haar_analysis(0, shape, x.data_ptr(), cpu.band_pointers([band.values for band in bands]))
    assert all(band.intact() for band in bands)
    for ours, truth in zip(bands, expected, strict=True):
        assert torch.equal(ours.values, truth.flatten())


@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_written_beside_the_map_and_the_gradient(library, size):
    student, teacher = torch.randn(2, 2, 3, *size).unbind()
    shape = cpu.shape_pointer(student.shape, False, 2)
    image, gradient = Guarded(student.numel()), Guarded(student.numel())
    bands = haar_dwt2_ref(student)
    library.edgekd_haar_synthesis(0, shape, cpu.band_pointers(list(bands)), image.values.data_ptr())
    library.edgekd_haar_loss(
        0, shape, student.data_ptr(), teacher.data_ptr(), None, 3, 0.1, 0.2,
        gradient.values.data_ptr(), 2.0, None,
    )  # fmt: skip
    assert image.intact() and gradient.intact()
    torch.testing.assert_close(image.values, student.flatten(), rtol=1e-6, atol=1e-6)
    assert bool((gradient.values != SENTINEL).all())


@pytest.mark.parametrize("shape", LARGE)
def test_a_large_transform_and_its_inverse_are_whole(shape):
    x = torch.randn(shape)
    bands = haar_dwt2(x, backend="cpu")
    for ours, truth in zip(bands, haar_dwt2_ref(x), strict=True):
        assert torch.equal(ours, truth)
    assert torch.equal(haar_idwt2(bands, shape[2:], backend="cpu"), haar_idwt2_ref(bands, shape[2:]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", LARGE)
def test_a_large_gradient_is_whole(shape, weighted):
    student, teacher = torch.randn(shape, requires_grad=True), torch.randn(shape)
    cell_weight = torch.rand(1, 1, (shape[2] + 1) // 2, shape[3] // 2) + 0.5 if weighted else None
    gradients = [
        torch.autograd.grad(loss, student)[0]
        for loss in (
            haar_weighted_mse(student, teacher, 0.5, 1.5, cell_weight, backend="cpu"),
            haar_weighted_mse_ref(student, teacher, 0.5, 1.5, cell_weight),
        )
    ]
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-9)


def runtime_library(name):
    """The path of a library of the compiler, or None: a sanitizer must be loaded before Python is."""
    found = subprocess.run([find_compiler(), f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
    return found if Path(found).is_absolute() else None


def test_sanitizers_find_nothing(tmp_path, monkeypatch):
    preloaded = [runtime_library(name) for name in ("libasan.so", "libstdc++.so.6")]
    if os.environ.get("CXX") or None in preloaded:
        pytest.skip("the address sanitizer of GCC is not here")
    monkeypatch.setenv("CXX", "g++ -fsanitize=address,undefined -fno-sanitize-recover=all")
    monkeypatch.setattr(_cpu_build, "FLAGS", ("-O1", *_cpu_build.FLAGS[1:]))
    if "avx512f" not in describe_machine().isa:  # these loops cannot run here, and instrumented they compile longest
        rows = _cpu_build.X86_ROWS | {"avx512": (*_cpu_build.AVX512, "-fno-sanitize=all", "-O0")}
        monkeypatch.setattr(_cpu_build, "X86_ROWS", rows)
    library = compile_cpu_library(tmp_path / "edgekd" / "kernels")
    program = Path(__file__).parent / "cpu_sanitizer_checks.py"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "LD_PRELOAD": " ".join(preloaded), "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run([sys.executable, program], env=os.environ | environment, capture_output=True, text=True)
    assert done.stdout == f"{library}\n", done.stderr[-2000:]
