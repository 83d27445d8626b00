"""`edgekd kernels check | bench`: are the fused Haar kernels right on this machine, and how fast."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.choices import FloatType

Device = Annotated[str, typer.Option(help="cpu or cuda; default: cuda when there is one")]


def check(device: Device = "") -> None:
    """Compare every implementation of this device with the float64 reference; exit 1 when one differs."""
    from edgekd.cli.console import log, out
    from edgekd.cli.values import parse_device
    from edgekd.errors import EdgekdError
    from edgekd.ops.check import available_backends, check_backend

    device = parse_device(device)
    failures = 0
    for backend, obstacle in available_backends(device).items():
        if obstacle:
            log.print(f"{backend}: skipped, {obstacle}")
            continue
        findings = list(check_backend(backend, device))
        failed = [finding for finding in findings if not finding.passed]
        worst = max(finding.error / finding.tolerance for finding in findings)
        out.print(
            f"{backend}: {len(findings) - len(failed)} of {len(findings)} pass, worst at {worst:.2f} of its limit"
        )
        for finding in failed:
            out.print(f"  {finding.case}: error {finding.error:.2e}, at most {finding.tolerance:.0e}")
        failures += len(failed)
    if failures:
        raise EdgekdError(
            f"{failures} comparisons of the Haar kernels failed; set EDGEKD_KERNELS=reference until fixed."
        )


def bench(
    device: Device = "",
    shape: Annotated[str, typer.Option(help="N,C,H,W")] = "8,256,80,80",
    dtype: Annotated[FloatType, typer.Option(help="type of the numbers")] = "float32",
) -> None:
    """Time the kernels against a copy in the same run; nothing is timed before `check` passes."""
    import torch

    from edgekd.cli.console import out
    from edgekd.cli.values import parse_device
    from edgekd.errors import InputError
    from edgekd.ops import resolve_backend
    from edgekd.ops.check import time_kernels

    sizes = [int(part) for part in shape.split(",") if part.strip().isdigit()]
    if len(sizes) != 4 or min(sizes) < 1:
        raise InputError(f"shape is {shape!r}, expected four positive integers N,C,H,W such as 8,256,80,80")
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    device = parse_device(device)
    check(device)
    backend = resolve_backend(device, dtypes[dtype]).name
    n, c, height, width = sizes
    for timing in time_kernels((n, c, height, width), dtypes[dtype], device, backend):
        out.print(
            f"{timing.name:18} {timing.minimum_ms:9.3f} ms (median {timing.median_ms:.3f}), "
            f"{timing.ratio_to_limit:.2f} times the copy's limit"
        )
