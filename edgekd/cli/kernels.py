"""`edgekd kernels info | check | bench | compile`: the fused Haar kernels on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="The fused Haar kernels: what computes here, is it right, how fast.", no_args_is_help=True)
Device = Annotated[str, typer.Option(help="cpu or cuda; default: cuda when there is one")]
ALL_SMS = "72,75,80,86,87,89,90,100,110,120"


@app.command()
def info() -> None:
    """Say which implementation computes on each device, and why not another."""
    import torch

    from edgekd.cli.console import out
    from edgekd.ops import resolve_backend
    from edgekd.ops._cpu_build import find_cpu_library
    from edgekd.ops.check import available_backends

    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            out.print("cuda: no GPU on this machine")
            continue
        backend = resolve_backend(device, torch.float32)
        out.print(f"{device}: {backend.name} ({backend.reason})")
        for name, obstacle in available_backends(device).items():
            out.print(f"  {name}: {obstacle or 'can compute'}")
    library = find_cpu_library()
    if library is not None:
        from edgekd.ops._cpu import instruction_set

        out.print(f"CPU library: {library.name}, {instruction_set()}")


@app.command()
def check(device: Device = "") -> None:
    """Compare every implementation of this device with the float64 reference; exit 1 when one differs."""
    from edgekd.cli.console import log, out
    from edgekd.errors import EdgekdError
    from edgekd.ops.check import available_backends, check_backend

    device = _device(device)
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


@app.command()
def bench(
    device: Device = "",
    shape: Annotated[str, typer.Option(help="N,C,H,W")] = "8,256,80,80",
    dtype: Annotated[str, typer.Option(help="float32, float16 or bfloat16")] = "float32",
) -> None:
    """Time the kernels against a copy in the same run; nothing is timed before `check` passes."""
    import torch

    from edgekd.cli.console import out
    from edgekd.errors import InputError
    from edgekd.ops import resolve_backend
    from edgekd.ops.check import time_kernels

    sizes = [int(part) for part in shape.split(",") if part.strip().isdigit()]
    if len(sizes) != 4 or min(sizes) < 1:
        raise InputError(f"--shape is {shape!r}, expected four positive integers N,C,H,W such as 8,256,80,80.")
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in dtypes:
        raise InputError(f"--dtype is {dtype!r}, expected one of {', '.join(dtypes)}.")
    device = _device(device)
    check(device)
    backend = resolve_backend(device, dtypes[dtype]).name
    n, c, height, width = sizes
    for timing in time_kernels((n, c, height, width), dtypes[dtype], device, backend):
        out.print(
            f"{timing.name:18} {timing.minimum_ms:9.3f} ms (median {timing.median_ms:.3f}), "
            f"{timing.ratio_to_limit:.2f} times the copy's limit"
        )


@app.command("compile")
def compile_kernels(
    sm: Annotated[str, typer.Option(help="compute capabilities, without a dot")] = ALL_SMS,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of cubins and manifest")] = Path("kernels"),
    cpu: Annotated[bool, typer.Option("--cpu", help="compile the CPU kernels for this user instead")] = False,
    nvrtc: Annotated[list[Path] | None, typer.Option(help="another NVRTC, for what the newest lacks")] = None,
) -> None:
    """Compile CUDA kernels ahead of time (no GPU needed), or with --cpu the CPU kernels of this machine."""
    from edgekd.cli.console import log, out

    if cpu:
        from edgekd.files import cache_folder
        from edgekd.ops._cpu_build import compile_cpu_library

        with log.status("compiling the CPU kernels"):
            library = compile_cpu_library(cache_folder("kernels"))
        out.print(str(library))
        return
    from edgekd.ops._nvrtc import compile_ahead, parse_sms

    with log.status("compiling the CUDA kernels"):
        manifest = compile_ahead(parse_sms(sm), output, nvrtc)
    out.print(str(manifest))


def _device(name: str) -> str:
    import torch

    from edgekd.errors import BackendUnavailable, InputError

    if name not in ("", "cpu", "cuda"):
        raise InputError(f"--device is {name!r}, expected cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailable("--device is cuda, but PyTorch finds no GPU here; use --device cpu.")
    return name or ("cuda" if torch.cuda.is_available() else "cpu")
