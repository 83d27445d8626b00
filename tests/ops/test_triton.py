"""Triton without a GPU: the interpreter against the reference, and machine code for the target devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
HERE = Path(__file__).parent


def test_interpreter_with_guard_bands():
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(HERE.parents[1])}
    checks = [sys.executable, str(HERE / "triton_interpreter_checks.py")]
    done = subprocess.run(checks, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "7 cases"


@pytest.mark.parametrize("sm", [87, 89, 90])
def test_gradient_kernel_moves_sixteen_bytes_without_spilling(sm, kernel_code):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from edgekd.ops._triton import FUSION, haar_gradient_kernel

    pointers = dict.fromkeys(("student", "teacher", "gradient"), "*fp16")
    signature = {"grad_output": "*fp32", **pointers, "cell_weight": "*fp32", "n_groups": "i32", "low": "fp32"}
    sizes = {"CHANNELS": 256, "HEIGHT": 80, "WIDTH": 80, "CELLS": 8, "BLOCK": 128, "WEIGHTED": False}
    signature = {name: signature.get(name, "fp32") for name in haar_gradient_kernel.arg_names if name not in sizes}
    signature |= dict.fromkeys(sizes, "constexpr")
    aligned = {(haar_gradient_kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(haar_gradient_kernel, signature, sizes, aligned)
    compiled = triton.compile(source, target=GPUTarget("cuda", sm, 32), options=FUSION)
    code = kernel_code(compiled.asm["cubin"])["haar_gradient_kernel"]
    assert code.count("LDG.E.128") == 8
    assert code.count("STG.E.128") == 4
    assert "STL" not in code


def test_triton_takes_no_cpu_tensors():
    from edgekd.errors import BackendUnavailable
    from edgekd.ops import haar_dwt2

    with pytest.raises(BackendUnavailable, match="Triton takes CUDA tensors, not cpu ones"):
        haar_dwt2(torch.zeros(1, 1, 2, 2), backend="triton")
