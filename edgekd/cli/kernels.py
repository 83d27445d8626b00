"""`edgekd kernels`: what computes on this machine, is it right, how fast is it, and compiling ahead of time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.choices import FloatType

app = typer.Typer(help="The Haar and picture kernels: what computes here, is it right, how fast.", no_args_is_help=True)
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
    from edgekd.nvrtc import compile_ahead, parse_sms

    with log.status("compiling the CUDA kernels"):
        manifest = compile_ahead(parse_sms(sm), output, nvrtc)
    out.print(str(manifest))


@app.command()
def check(device: Device = "") -> None:
    """Compare every implementation of this device with the float64 reference; exit 1 when one differs."""
    from edgekd.cli.console import log, out
    from edgekd.cli.values import parse_device
    from edgekd.ops.check import check_kernels

    check_kernels(parse_device(device), out.print, log.print)


@app.command()
def bench(
    device: Device = "",
    shape: Annotated[str, typer.Option(help="N,C,H,W")] = "8,256,80,80",
    dtype: Annotated[FloatType, typer.Option(help="type of the numbers")] = "float32",
) -> None:
    """Time the kernels against a copy in the same run; nothing is timed before `check` passes."""
    from edgekd.cli.console import log, out
    from edgekd.cli.values import parse_device, parse_shape
    from edgekd.ops.check import bench_kernels

    bench_kernels(parse_shape(shape), dtype, parse_device(device), out.print, log.print)
