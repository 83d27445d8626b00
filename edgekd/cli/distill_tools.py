"""`edgekd distill strip | train-amplifier`, and the options that they share with `edgekd distill`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option(help="data set in Ultralytics' YAML, see edgekd data")]
Output = Annotated[Path, typer.Option("-o", "--output", help="folder of the run")]
RecipeName = Annotated[str, typer.Option(help="a name of `edgekd distill recipe`, or a JSON file")]
Epochs = Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")]
Imgsz = Annotated[int | None, typer.Option(min=32, help="side of the pictures in pixels, a multiple of 32")]
Batch = Annotated[int | None, typer.Option(min=1, help="pictures per step")]
Device = Annotated[str, typer.Option(help="cpu, or GPU numbers: 0 or 0,1 (several GPUs under torchrun)")]
TRAINING_MODULES = ("torch", "ultralytics", "timm", "matplotlib")


def strip(
    checkpoint: Annotated[Path, typer.Argument(help="resume.pt, last.pt or any Ultralytics detection checkpoint")],
    output: Annotated[Path, typer.Option("-o", "--output", help="plain checkpoint to write (.pt)")],
) -> None:
    """Write a plain Ultralytics checkpoint from an interrupted run."""
    from edgekd.cli.console import out
    from edgekd.environment import need_modules
    from edgekd.train.run_folder import log_on_stderr

    need_modules("training", TRAINING_MODULES, "train")
    with log_on_stderr():
        from edgekd.train.checkpoint import strip as write_plain

        write_plain(checkpoint, output)
    out.print(f"{output}: a plain DetectionModel")


def train_amplifier(
    data: Data,
    output: Output,
    teacher: Annotated[Path, typer.Option(help="detector (.pt) whose head is trained on its high frequencies")],
    recipe: RecipeName = "default",
    epochs: Epochs = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = "cpu",
    json_file: Annotated[Path | None, typer.Option("--json", help="write the metrics")] = None,
) -> None:
    """Train the high-frequency amplifier of DS2D2: the teacher's head, on the detail bands of its own features."""
    from edgekd.environment import need_modules
    from edgekd.train.distill.recipes import load_recipe
    from edgekd.train.run_folder import log_on_stderr

    need_modules("training", TRAINING_MODULES, "train")
    schedule = load_recipe(recipe).with_schedule(epochs=epochs, imgsz=imgsz, batch=batch).schedule
    with log_on_stderr():
        from edgekd.train.distill.amplifier import AmplifierJob
        from edgekd.train.distill.amplifier import train_amplifier as train

        metrics = train(AmplifierJob(data=data, teacher=teacher, output=output, schedule=schedule, device=device))
    print_metrics(metrics, output, json_file)


def print_metrics(metrics: Mapping[str, float], output: Path, json_file: Path | None) -> None:
    """Say how good a detector became; only the first of several processes has anything to say."""
    import json

    from edgekd.cli.console import out, write_text

    if not metrics:
        return
    named = {name.removeprefix("metrics/").removesuffix("(B)"): value for name, value in metrics.items()}
    for name, value in named.items():
        out.print(f"{name}: {value:.4f}")
    if json_file:
        write_text(json_file, json.dumps(named, indent=1) + "\n")
    out.print(f"{output / 'weights' / 'best.pt'}: a plain Ultralytics checkpoint")
