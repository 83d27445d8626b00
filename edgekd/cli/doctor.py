"""`edgekd doctor`: what this machine is, and whether a bundle fits it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def doctor(
    bundle: Annotated[Path | None, typer.Argument(help="also say whether this bundle runs here")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the machine as JSON")] = None,
    public_key: Annotated[str | None, typer.Option("--require-signature", help="public key of who signed it")] = None,
) -> None:
    """Show what this machine offers; with a bundle, check manifest, target, files and its known answer."""
    from rich.table import Table

    from edgekd.bundle import check_files, read_manifest, settled
    from edgekd.cli.console import out, write_json
    from edgekd.environment import describe_machine, has_module
    from edgekd.runtime.chain import Chain
    from edgekd.runtime.cuda import compute_capability
    from edgekd.runtime.known_answer import check_known_answer
    from edgekd.runtime.pictures import where_prepared
    from edgekd.runtime.target import check_machine

    machine = describe_machine()
    out.print(
        f"{machine.cpu}, {machine.n_cores} cores ({', '.join(machine.isa)}), {machine.memory_gib} GiB, {machine.os}"
    )
    capability = compute_capability()
    out.print(f"GPU: {machine.gpu or 'none found'}" + (f", compute capability {capability}" if capability else ""))
    table = Table("for", "needs", "here")
    for purpose, module, extra in _NEEDS:
        found = machine.versions.get(_PACKAGE_OF.get(module, module), "yes") if has_module(module) else None
        table.add_row(purpose, module, found or f"no: pip install {extra}")
    out.print(table)
    write_json(json_file, machine)
    if bundle:
        bundle = settled(bundle)
        manifest = read_manifest(bundle, public_key)
        check_machine(bundle, manifest)
        check_files(bundle, manifest)
        with Chain.open(bundle, public_key=public_key) as chain:
            answered = check_known_answer(bundle, chain)
            where = where_prepared(chain.pictures)
        said = "answers as it did when it was built" if answered else "opens; it has no known answer to compare with"
        out.print(f"{bundle} fits this machine, is whole, and {said}")
        out.print(where)


_NEEDS = (
    ("openvino bundles", "openvino", "openvino"),
    ("onnxruntime bundles", "onnxruntime", "onnxruntime"),
    ("tensorrt bundles", "tensorrt", "'edgekd[tensorrt]'"),
    ("tensorrt-rtx bundles", "tensorrt_rtx", "'edgekd[rtx]'"),
    ("building for ONNX Runtime and TensorRT", "onnx", "'edgekd[device]'"),
    ("export, calibrate", "torch", "'edgekd[build]'"),
    ("export of detectors", "ultralytics", "'edgekd[build]'"),
    ("distill, finetune", "faster_coco_eval", "'edgekd[train]'"),
    ("signatures", "minisign", "'edgekd[sign]'"),
    ("GeoJSON", "rasterio", "'edgekd[geo]'"),
)
_PACKAGE_OF = {"tensorrt_rtx": "tensorrt-rtx"}
