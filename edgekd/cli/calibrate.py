"""`edgekd calibrate`: a float model set becomes one with INT8 Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Target = Literal["tensorrt", "cpu"]
Method = Literal["auto", "minmax", "percentile", "entropy"]
Part = Literal["detector", "segmenter"]


def calibrate(
    models: Annotated[Path, typer.Argument(help="folder written by export")],
    images: Annotated[Path, typer.Option(help="pictures like those that the device will see")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write")],
    target: Annotated[Target, typer.Option(help="what will run it: symmetric S8 for TensorRT, U8 for a CPU")],
    method: Annotated[Method, typer.Option(help="how ranges are found; auto measures all and keeps the best")] = "auto",
    only: Annotated[Part | None, typer.Option(help="quantize one network alone")] = None,
    count: Annotated[int, typer.Option(help="most pictures to use", min=1)] = 128,
    data: Annotated[Path | None, typer.Option(help="labels to measure on: COCO .json or Ultralytics .yaml")] = None,
    data_images: Annotated[Path | None, typer.Option(help="folder of the pictures of --data")] = None,
    trial_count: Annotated[int, typer.Option(help="pictures that methods are compared on", min=1)] = 32,
    recipe: Annotated[list[Path] | None, typer.Option(help="your own recipe; may be given once a network")] = None,
    set_file: Annotated[Path | None, typer.Option("--set", help="calibration set that the pictures must match")] = None,
) -> None:
    """Measure ranges on pictures and write graphs with Q/DQ pairs; the decoder stays float."""
    from edgekd.cli.console import log, out
    from edgekd.data.read import read_labels
    from edgekd.deploy.candidates import method_score
    from edgekd.deploy.quantize import CalibrateOptions, calibrate_models
    from edgekd.graphs import StageName
    from edgekd.measure.quality import Sample
    from edgekd.model_set import read_model_set
    from edgekd.runtime.sources import pictures_in

    masks: StageName = "segmenter" if read_model_set(models).kind == "crop" else "encoder"
    stages: dict[Part | None, tuple[StageName, ...]] = {
        None: ("detector", masks),
        "detector": ("detector",),
        "segmenter": (masks,),
    }
    options = CalibrateOptions(target, method, stages[only], count, tuple(recipe or ()), set_file)
    score = None
    if method == "auto" and images.is_dir():
        labels = read_labels(data, data_images, limit=trial_count) if data else None
        sample = Sample.of_labels(labels) if labels else Sample(tuple(pictures_in(images)[:trial_count]))
        score = method_score(models, target, sample)
    with log.status("calibrating"):
        model_set = calibrate_models(models, images, output, options, score, log.print)
    for name in options.stages:
        facts = model_set.stages[name].calibration or {}
        out.print(f"{name}: {facts['recipe']}, {facts['method']}, {facts['n_pictures']} pictures of {facts['set']}")
    out.print(f"{output}: next, edgekd build-engine {output} --precision int8 --gate box_ap=0.5,mask_iou=0.98")
