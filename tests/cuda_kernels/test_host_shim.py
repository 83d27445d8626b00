"""The CUDA kernels on the CPU, through the host shim under ASan and UBSan, against the reference.

A bound that is one off, a misaligned vector access, an unwritten output (buffers start as NaN) and a missing barrier
(shared memory starts as NaN, threads run in both orders) each fail here; `test_mutants` breaks the kernels to prove it.
"""

import shutil
import struct
import subprocess

import numpy as np
import pytest
import torch

from edgekd.ops import HaarBands, haar_dwt2_ref, haar_idwt2_ref
from edgekd.ops._cpu_build import kernel_sources_dir
from edgekd.ops._reference import BandWeights, loss, loss_gradient, synthesis

GXX = shutil.which("g++")
pytestmark = pytest.mark.skipif(GXX is None, reason="needs g++")
WHAT = {"analysis": 0, "synthesis": 1, "loss": 2, "gradient": 3}
DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
ROUNDING = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
# (dtype, cells per thread, (N, C, H, W)): every width of the vector path, the guarded one, several blocks and warps
CASES = [
    (torch.float32, 4, (1, 2, 6, 16)),
    (torch.float32, 4, (2, 3, 34, 40)),
    (torch.float32, 2, (2, 2, 10, 20)),
    (torch.float32, 1, (2, 2, 7, 9)),
    (torch.float32, 1, (1, 3, 33, 31)),
    (torch.float16, 8, (2, 2, 18, 80)),
    (torch.float16, 4, (1, 2, 4, 40)),
    (torch.float16, 2, (1, 2, 4, 20)),
    (torch.float16, 1, (1, 2, 5, 5)),
    (torch.bfloat16, 8, (1, 1, 6, 16)),
    (torch.bfloat16, 1, (1, 2, 9, 6)),
]


def build(csrc, output):
    command = [GXX, "-g1", "-O0", "-std=c++17", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    command += ["-w", str(csrc / "host" / "shim_check.cpp"), "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return output


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return build(kernel_sources_dir() / "csrc", tmp_path_factory.mktemp("shim") / "shim_check")


def run(program, what, case, tensors, replicate=0, reverse=0, weights=(0.0, 0.0), grad_output=1.0):
    dtype, cells, shape = case
    weighted = int(len(tensors) == 3)
    header = struct.pack("10i3f", WHAT[what], DTYPES[dtype], cells, *shape, replicate, weighted, reverse, *weights,
                         grad_output)  # fmt: skip
    data = header + b"".join(t.contiguous().view(torch.uint8).numpy().tobytes() for t in tensors)
    done = subprocess.run([program], input=data, capture_output=True)
    if done.returncode:
        raise AssertionError(done.stderr.decode(errors="replace")[:600])
    kind = torch.float32 if what == "loss" else dtype
    return torch.from_numpy(np.frombuffer(done.stdout, np.uint8).copy()).view(kind)


def relative_error(ours, truth):
    return ((ours.double() - truth.double()).abs().max() / truth.double().abs().max()).item()


def check_transform(program, case, replicate=0):
    torch.manual_seed(0)
    dtype, _, shape = case
    x = torch.randn(shape).to(dtype)
    bands = haar_dwt2_ref(x, "symmetric" if replicate else "zero")
    ours = run(program, "analysis", case, [x], replicate)
    assert torch.equal(ours, torch.cat([band.flatten() for band in bands]))
    back = run(program, "synthesis", case, list(bands), replicate).view(shape)
    wide = synthesis([band.float() for band in bands], *shape[2:], bool(replicate)).to(dtype)
    assert torch.equal(back, wide)
    if not replicate:
        assert torch.equal(back, haar_idwt2_ref(HaarBands(*bands), shape[2:]))


def check_loss(program, case, weighted=True, reverse=0):
    torch.manual_seed(0)
    dtype, _, (n, c, height, width) = case
    student, teacher = torch.randn(n, c, height, width).to(dtype), torch.randn(n, c, height, width).to(dtype)
    cell_weight = torch.rand(n, 1, (height + 1) // 2, (width + 1) // 2) + 0.5 if weighted else None
    tensors = [student, teacher] + ([cell_weight] if weighted else [])
    weights = BandWeights(0.3, 1.7)
    options = {"weights": weights.per_cell(student.shape), "reverse": reverse}
    wide = student.double(), teacher.double(), cell_weight
    assert relative_error(run(program, "loss", case, tensors, **options), loss(*wide, weights, False)[0]) <= 1e-5
    scale = 65536.0 if dtype == torch.float16 else 3.0
    truth = loss_gradient(torch.tensor(scale, dtype=torch.float64), *wide, weights)
    ours = run(program, "gradient", case, tensors, grad_output=scale, **options)
    assert relative_error(ours.view(student.shape), truth) <= ROUNDING[dtype]


@pytest.mark.parametrize("replicate", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_transform_and_adjoint(shim, case, replicate):
    check_transform(shim, case, replicate)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradient(shim, case, reverse, weighted):
    check_loss(shim, case, weighted, reverse)


def test_loss_has_the_same_bits_in_any_order_of_threads(shim):
    case = CASES[1]
    student, teacher = torch.randn(case[2]), torch.randn(case[2])
    results = {run(shim, "loss", case, [student, teacher], reverse=r, weights=(1.0, 1.0)).item() for r in (0, 1)}
    assert len(results) == 1


MUTANTS = {
    "wrong sign in one band": ("haar_core.h", "0.5f * (top_step - bottom_step)", "0.5f * (bottom_step - top_step)"),
    "bound one too far": ("haar_dwt.cuh", "if (group >= count", "if (group > count"),
    "missing barrier in the warps' sum": ("haar_loss.cuh", "  __syncthreads();\n  if (threadIdx.x >= kWarp)",
                                          "  if (threadIdx.x >= kWarp)"),
    "missing barrier in the last sum": ("haar_loss.cuh", "    __syncthreads();\n    if (threadIdx.x < half)",
                                        "    if (threadIdx.x < half)"),
    "unmasked store": ("haar_device.cuh", "if (right && below) top[grid.width + 1]", "top[grid.width + 1]"),
    "vector access on odd rows": ("haar_device.cuh", "if constexpr (kCells == 1)", "if constexpr (kCells < 1)"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(name, tmp_path):
    file, good, bad = MUTANTS[name]
    csrc = tmp_path / "csrc"
    shutil.copytree(kernel_sources_dir() / "csrc", csrc)
    source = (csrc / file).read_text()
    assert good in source
    (csrc / file).write_text(source.replace(good, bad))
    program = build(csrc, tmp_path / "mutant")
    with pytest.raises(AssertionError):
        for case in (CASES[4], CASES[1]):
            check_transform(program, case)
            check_loss(program, case)
            check_loss(program, case, reverse=1)
