"""The demonstration: the shipped models become a bundle per kind, which runs and is measured on the shipped picture."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekd.bundle import FILE_NAME
from edgekd.choices import DemoKind
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.files import scratch_folder, write_text
from edgekd.measure.latency import BenchOptions, LatencyReport, measure_latency
from edgekd.model_set import read_model_set
from edgekd.models.crop_set import copy_shipped_crop
from edgekd.package_files import DEMO_PICTURE, default_models
from edgekd.runtime.chain import Chain
from edgekd.runtime.large import Watch
from edgekd.runtime.run import PictureReport, run_pictures

KINDS: tuple[DemoKind, ...] = ("sam", "crop")
_SLOW_S = 20.0
"""From this time for a picture on, few runs must do: a demonstration is not a benchmark."""


@dataclass(frozen=True)
class Way:
    """One way to a mask: what was found on the picture, how long it took, and where its bundle is."""

    picture: PictureReport
    latency: LatencyReport
    bundle: Path


@dataclass(frozen=True)
class Demonstration:
    """Both ways to a mask by kind, the files that were written by what they are, and how long it took."""

    ways: Mapping[str, Way]
    files: Mapping[str, Path]
    seconds: float


def demonstrate(
    folder: Path, report: Callable[[str], None] = lambda line: None, kinds: Sequence[DemoKind] = KINDS
) -> Demonstration:
    """Build, run and measure the shipped chain of each kind.

    Args:
        folder: gets bundle, overlay, masks, results and latency.json of the kind `sam`, and the same of the kind `crop`
            in `crop/`.
        report: called with one line per step.
        kinds: the ways to a mask that are shown.

    Raises:
        EdgekdError: as for `build_bundle` and `run_pictures`.
    """
    start = time.perf_counter()
    ways = {}
    if "sam" in kinds:
        ways["sam"] = _show(default_models(), folder, report)
    if "crop" in kinds:
        with scratch_folder("demo") as room:
            copy_shipped_crop(room / "models", default_models())
            ways["crop"] = _show(room / "models", folder / "crop", report)
    files: dict[str, Path] = {}
    for kind, way in ways.items():
        place = way.bundle.parent
        files |= {
            f"look at ({kind})": place / f"{way.picture.name}_overlay.jpg",
            f"objects ({kind})": place / "results.json",
            f"latency ({kind})": place / "latency.json",
            f"bundle ({kind})": way.bundle / FILE_NAME,
        }
    return Demonstration(ways, files, time.perf_counter() - start)


def _show(models: Path, folder: Path, report: Callable[[str], None]) -> Way:
    for name, stage in read_model_set(models).stages.items():
        trained = "" if stage.source.trained else " - UNTRAINED: its output means nothing"
        report(f"{name}: {stage.source.name}, {stage.source.licence}{trained}")
    bundle = folder / "bundle"
    build_bundle(models, bundle, BuildOptions(), report)
    with Chain.open(bundle) as chain:
        (picture,) = run_pictures(chain, [DEMO_PICTURE], folder, watch=Watch(note=report))
    is_slow = picture.total_ms > 1000 * _SLOW_S
    least = BenchOptions(warm_up_runs=0, min_runs=2, min_seconds=0.0)
    latency = measure_latency(bundle, options=least if is_slow else BenchOptions(min_runs=10, min_seconds=2.0))
    write_text(folder / "latency.json", latency.model_dump_json(indent=2) + "\n")
    return Way(picture, latency, bundle)
