"""`edgekd calibrate`: a float model set becomes one with INT8 Q/DQ pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.backends import CalibrationTarget
from edgekd.choices import Part, RangeMethodWish, WeightBits


def calibrate(
    models: Annotated[Path, typer.Argument(help="folder written by export")],
    images: Annotated[Path, typer.Option(help="pictures like those that the device will see")],
    output: Annotated[Path, typer.Option("-o", "--output", help="folder to write")],
    target: Annotated[
        CalibrationTarget, typer.Option(help="what will run it: symmetric S8 for TensorRT, U8 for a CPU")
    ],
    method: Annotated[
        RangeMethodWish, typer.Option(help="of finding ranges; auto measures all, keeps the best")
    ] = "auto",
    only: Annotated[Part | None, typer.Option(help="quantize one network alone")] = None,
    count: Annotated[int, typer.Option(help="most pictures to use", min=1)] = 128,
    data: Annotated[Path | None, typer.Option(help="labels to measure on: COCO .json or Ultralytics .yaml")] = None,
    data_images: Annotated[Path | None, typer.Option(help="folder of the pictures of --data")] = None,
    trial_count: Annotated[int, typer.Option(help="pictures that methods are compared on", min=1)] = 32,
    recipe: Annotated[list[Path] | None, typer.Option(help="your own recipe; may be given once per network")] = None,
    set_file: Annotated[Path | None, typer.Option("--set", help="calibration set that the pictures must match")] = None,
    weight_bits: Annotated[
        WeightBits | None, typer.Option(help="7 for x86 without VNNI; default: what this processor needs")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the description of the set here too")] = None,
) -> None:
    """Measure ranges on pictures and write graphs with Q/DQ pairs; the decoder stays float."""
    from edgekd.cli.console import log, out, write_json
    from edgekd.data.read import read_labels
    from edgekd.deploy.calibrate import CalibrateOptions, stages_of
    from edgekd.deploy.calibrate import calibrate as run_calibration

    options = CalibrateOptions(
        target=target,
        method=method,
        stages=stages_of(models, only),
        n_pictures=count,
        recipes=tuple(recipe or ()),
        set_file=set_file,
        weight_bits=weight_bits,
    )
    labels = read_labels(data, data_images, limit=trial_count) if data and method == "auto" else None
    with log.status("calibrating"):
        model_set = run_calibration(models, images, output, options, labels, log.print)
    for name in options.stages:
        facts = model_set.stages[name].calibration or {}
        out.print(f"{name}: {facts['recipe']}, {facts['method']}, {facts['n_pictures']} pictures of {facts['set']}")
    gate = f"--gate box_ap=0.5,mask_iou=0.98 --data {data or 'LABELS.json'}"
    out.print(f"{output}: next, edgekd build-engine {output} -o BUNDLE --precision int8 {gate}")
    write_json(json_file, model_set)
