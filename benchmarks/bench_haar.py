"""Haar kernels against a copy, plain PyTorch and pytorch_wavelets, in one run.

    python benchmarks/bench_haar.py [--device cuda] [--out benchmarks/results]

Every backend is compared with the float64 reference first, and pytorch_wavelets with ours; nothing is timed when one
differs. Contenders take turns in an order that changes; ratios are of minima and of medians. On Linux, GLIBC_TUNABLES
in the result file says whether the C library kept freed memory: a fresh 52 MB output costs more in page faults than the
transform.

A transform moves two maps, a loss with its gradient three: one copy and one and a half copies are the memory's limits.
The C functions write to where the copy writes: that compares the kernels with it. The public functions also check,
allocate and differentiate, and the empty loss says what an autograd step takes before any kernel: it computes nothing
and returns an uninitialised gradient.
"""

import argparse
import os
import sys
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from result_file import write_result

from edgekd.ops import _cpu, haar_dwt2, haar_dwt2_ref, haar_weighted_mse, haar_weighted_mse_ref, resolve_backend
from edgekd.ops._reference import BandWeights
from edgekd.ops.check import available_backends, check_backend, interleaved_ms

SHAPES = ((8, 256, 80, 80), (8, 256, 40, 40), (8, 256, 20, 20))
LOW, HIGH = 0.5, 1.5
BAND_GAP = 80  # elements between bands, as between separate allocations: bands of 200 whole pages share cache sets
LIMIT_COPIES = {"forward": 1.0, "loss and gradient": 1.5}


def peer_transform(device):
    """pytorch_wavelets as a user of it would call it, or None when it is not installed."""
    try:
        from pytorch_wavelets import DWTForward
    except ImportError as error:
        print(f"pytorch_wavelets is left out: {error}", file=sys.stderr)
        return None
    return DWTForward(J=1, wave="haar", mode="zero").to(device)


def peer_loss(transform, student, teacher):
    (low_s, (high_s,)), (low_t, (high_t,)) = transform(student), transform(teacher)
    return LOW * F.mse_loss(low_s, low_t) + HIGH * F.mse_loss(high_s, high_t)


def check(device):
    """Stop unless every implementation that computes here, and the peer, agree with the reference."""
    for backend, obstacle in available_backends(device).items():
        failed = [] if obstacle else [f for f in check_backend(backend, device) if not f.passed]
        if failed:
            sys.exit(f"{backend} is wrong, nothing is timed: {failed}")
    if resolve_backend(device, torch.float32).name == "cpu":
        check_c_functions()
    transform = peer_transform(device)
    if transform is None:
        return
    student, teacher = torch.randn(2, 3, 20, 20, device=device), torch.randn(2, 3, 20, 20, device=device)
    ours, theirs = haar_weighted_mse(student, teacher, LOW, HIGH), peer_loss(transform, student, teacher)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def backward_of(loss, student):
    def run():
        student.grad = None
        loss().backward()

    return run


class EmptyLoss(torch.autograd.Function):
    """(student, value) -> value, with a gradient of any content."""

    @staticmethod
    def forward(ctx, student, value):
        """Return the value."""
        ctx.save_for_backward(student)
        return value

    @staticmethod
    def backward(ctx, grad_output):
        """Return room for the gradient."""
        return torch.empty_like(ctx.saved_tensors[0]), None


def room_for(x):
    """Memory for the copy, for the gradient or for four bands of x."""
    return x.new_empty(x.numel() + 4 * BAND_GAP, requires_grad=False)


def c_functions(student, teacher, room):
    """The C library on even float32 maps, called as C calls it; both write to the room and return what they wrote."""
    library, shape = _cpu.library(), _cpu.shape_pointer(student.shape, False, torch.get_num_threads())
    n, c, height, width = student.shape
    bands = [band.view(n, c, height // 2, width // 2) for band in room.view(4, -1)[:, BAND_GAP:]]
    gradient, loss = room[: student.numel()].view(student.shape), torch.empty(())
    pointers, weights = _cpu.band_pointers(bands), BandWeights(LOW, HIGH).per_cell(student.shape)
    maps = student.data_ptr(), teacher.data_ptr(), None, student.shape[1]
    outputs = gradient.data_ptr(), 2.0, loss.data_ptr()

    def forward():
        library.edgekd_haar_analysis(0, shape, student.data_ptr(), pointers)
        return bands

    def loss_and_gradient():
        library.edgekd_haar_loss(0, shape, *maps, *weights, *outputs)
        return loss, gradient

    return {"C function forward": forward, "C function loss and gradient": loss_and_gradient}


def check_c_functions():
    """Stop unless the calls that are timed write what the reference returns."""
    student, teacher = torch.randn(2, 3, 20, 20, requires_grad=True), torch.randn(2, 3, 20, 20)
    forward, loss_and_gradient = c_functions(student, teacher, room_for(student)).values()
    expected = haar_weighted_mse_ref(student, teacher, LOW, HIGH)
    expected.backward()
    torch.testing.assert_close(forward(), list(haar_dwt2_ref(student.detach())))
    loss, gradient = loss_and_gradient()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient, student.grad, rtol=1e-5, atol=1e-9)


def contenders(shape, dtype, device):
    student = torch.randn(shape, device=device).to(dtype).requires_grad_()
    teacher, x, room = torch.randn_like(student), student.detach(), room_for(student)
    target, one = room[: x.numel()].view(shape), torch.ones((), device=device)
    kernels = c_functions(student, teacher, room) if resolve_backend(device, dtype).name == "cpu" else {}
    fast = {
        "copy": lambda: target.copy_(x),
        **kernels,
        "edgekd forward": lambda: haar_dwt2(x),
        "edgekd loss and gradient": backward_of(lambda: haar_weighted_mse(student, teacher, LOW, HIGH), student),
        "empty loss and gradient": backward_of(lambda: EmptyLoss.apply(student, one), student),
    }
    slow = {
        "plain PyTorch forward": lambda: haar_dwt2_ref(x),
        "plain MSE loss and gradient": backward_of(lambda: F.mse_loss(student, teacher), student),
        "plain PyTorch loss and gradient": backward_of(
            lambda: haar_weighted_mse_ref(student, teacher, LOW, HIGH), student
        ),
    }
    transform = peer_transform(device)
    if transform is not None and dtype == torch.float32:
        slow["pytorch_wavelets forward"] = lambda: transform(x)
        slow["pytorch_wavelets loss and gradient"] = backward_of(
            lambda: peer_loss(transform, student, teacher), student
        )
    return fast, slow


def measure(shape, dtype, device, repeats):
    fast, slow = contenders(shape, dtype, device)
    n_bytes = 2 * torch.Size(shape).numel() * dtype.itemsize  # a copy reads and writes
    # Small maps are timed more often: the same seconds, more chances for a minimum that no neighbour disturbed.
    n_fast = repeats * torch.Size(SHAPES[0]).numel() // torch.Size(shape).numel()
    times = interleaved_ms(fast, device, n_fast) | interleaved_ms(slow, device, max(repeats // 6, 3))
    copy_ms, copy_median_ms = min(times["copy"]), median(times["copy"])
    rows = []
    for name, ms in times.items():
        limit = next((c for what, c in LIMIT_COPIES.items() if name.endswith(what)), 1.0)
        rows.append(
            {
                "shape": shape,
                "dtype": str(dtype).removeprefix("torch."),
                "name": name,
                "minimum_ms": round(min(ms), 4),
                "median_ms": round(median(ms), 4),
                "repeats": len(ms),
                "ratio_to_limit": round(min(ms) / (limit * copy_ms), 3),
                "median_ratio_to_limit": round(median(ms) / (limit * copy_median_ms), 3),
                "copy_gb_per_s": round(n_bytes / copy_ms / 1e6, 1),
            }
        )
    return rows


def table(rows):
    lines = [
        "| map | dtype | what | min ms | median ms | times the limit | of medians |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        size = "x".join(map(str, row["shape"]))
        times = f"{row['minimum_ms']:.3f} | {row['median_ms']:.3f}"
        ratios = f"{row['ratio_to_limit']:.2f} | {row['median_ratio_to_limit']:.2f}"
        lines.append(f"| {size} | {row['dtype']} | {row['name']} | {times} | {ratios} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("-o", "--output", "--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--note", default="", help="what else ran on the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.output.mkdir(parents=True, exist_ok=True)
    check(arguments.device)
    dtypes = (torch.float32,) if arguments.device == "cpu" else (torch.float32, torch.float16)
    rows = [
        row
        for dtype in dtypes
        for shape in SHAPES
        for row in measure(shape, dtype, arguments.device, arguments.repeats)
    ]
    result = {
        "device": arguments.device,
        "backend": resolve_backend(arguments.device, torch.float32)._asdict(),
        "torch": torch.__version__,
        "threads": arguments.threads,
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", ""),
        "note": arguments.note,
        "rows": rows,
    }
    write_result("haar", result, arguments.output).with_suffix(".md").write_text(table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
