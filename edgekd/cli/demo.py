"""`edgekd demo`: build, run and bench the shipped models on the shipped picture; needs the core install only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer


def demo(
    output: Annotated[Path, typer.Option("-o", "--out", help="folder for bundle, overlay and reports")] = Path(
        "edgekd-demo"
    ),
) -> None:
    """Shipped models and picture in; bundle, overlay picture, result JSON and a latency table out."""
    from edgekd.bundle import FILE_NAME
    from edgekd.cli.bench import bench
    from edgekd.cli.console import log, out
    from edgekd.cli.run import run
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.model_set import read_model_set
    from edgekd.package_files import DEMO_PICTURE, default_models

    start = time.perf_counter()
    models = default_models()
    for name, stage in read_model_set(models).stages.items():
        trained = "" if stage.source.trained else " - UNTRAINED: its output means nothing"
        log.print(f"{name}: {stage.source.name}, {stage.source.licence}{trained}")
    with log.status("building the bundle"):
        build_bundle(models, output / "bundle", BuildOptions(), log.print)
    run(output / "bundle", [DEMO_PICTURE], output)
    bench(output / "bundle", json_file=output / "latency.json", min_runs=10, min_seconds=2.0)
    out.print(f"look at   {output / (DEMO_PICTURE.stem + '_overlay.jpg')}")
    out.print(f"objects   {output / 'results.json'}")
    out.print(f"latency   {output / 'latency.json'}")
    out.print(f"bundle    {output / 'bundle' / FILE_NAME}")
    out.print(f"took      {time.perf_counter() - start:.1f} s")
