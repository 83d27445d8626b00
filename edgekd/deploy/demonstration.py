"""The demonstration: the shipped models become a bundle, which runs and is measured on the shipped picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekd.bundle import FILE_NAME
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.files import write_text
from edgekd.measure.latency import BenchOptions, LatencyReport, measure_latency
from edgekd.model_set import read_model_set
from edgekd.package_files import DEMO_PICTURE, default_models
from edgekd.runtime.chain import Chain
from edgekd.runtime.large import Watch
from edgekd.runtime.run import PictureReport, run_pictures


@dataclass(frozen=True)
class Demonstration:
    """What was found and measured, the files that were written by what they are, and how long it took."""

    picture: PictureReport
    latency: LatencyReport
    files: Mapping[str, Path]
    seconds: float


def demonstrate(folder: Path, report: Callable[[str], None] = lambda line: None) -> Demonstration:
    """Build, run and measure.

    Args:
        folder: gets bundle, overlay, masks, results and latency.json.
        report: called with one line per step.

    Raises:
        EdgekdError: as for `build_bundle` and `run_pictures`.
    """
    start = time.perf_counter()
    models = default_models()
    for name, stage in read_model_set(models).stages.items():
        trained = "" if stage.source.trained else " - UNTRAINED: its output means nothing"
        report(f"{name}: {stage.source.name}, {stage.source.licence}{trained}")
    bundle = folder / "bundle"
    build_bundle(models, bundle, BuildOptions(), report)
    with Chain.open(bundle) as chain:
        (picture,) = run_pictures(chain, [DEMO_PICTURE], folder, watch=Watch(note=report))
    latency = measure_latency(bundle, options=BenchOptions(min_runs=10, min_seconds=2.0))
    write_text(folder / "latency.json", latency.model_dump_json(indent=2) + "\n")
    files = {
        "look at": folder / f"{picture.name}_overlay.jpg",
        "objects": folder / "results.json",
        "latency": folder / "latency.json",
        "bundle": bundle / FILE_NAME,
    }
    return Demonstration(picture, latency, files, time.perf_counter() - start)
