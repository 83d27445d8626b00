"""`edgekd distill`: a student learns from labels and a teacher; `strip` and `train-amplifier` go with it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from edgekd.cli.distill_recipe import recipe as print_recipe
from edgekd.errors import BackendUnavailable, InputError

app = typer.Typer()
app.command("recipe")(print_recipe)

Data = Annotated[Path, typer.Option(help="data set in Ultralytics' YAML, see edgekd data")]
Output = Annotated[Path, typer.Option("-o", "--output", help="folder of the run")]
Teacher = Annotated[Path | None, typer.Option(help="detector (.pt) or DINOv2/DINOv3 ViT (.safetensors, .pth)")]
RecipeName = Annotated[str, typer.Option(help="a name of `edgekd distill recipe`, or a JSON file")]
Epochs = Annotated[int | None, typer.Option(min=1, help="instead of the recipe's")]
Imgsz = Annotated[int | None, typer.Option(min=32, help="side of the pictures in pixels, a multiple of 32")]
Batch = Annotated[int | None, typer.Option(min=1, help="pictures per step")]
Device = Annotated[str, typer.Option(help="cpu, or GPU numbers: 0 or 0,1 (several GPUs under torchrun)")]


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="data set in Ultralytics' YAML, see edgekd data")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="folder of the run")] = None,
    student: Annotated[
        str, typer.Option(help="checkpoint, name of `edgekd weights list`, or .yaml (random)")
    ] = "yolo11n",
    teacher: Teacher = None,
    method: Annotated[str, typer.Option(help="none, feature (features, attention, logits) or ds2d2")] = "ds2d2",
    recipe: RecipeName = "default",
    epochs: Epochs = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    amplifier: Annotated[Path | None, typer.Option(help="checkpoint of `edgekd distill train-amplifier`")] = None,
    feature_cache: Annotated[Path | None, typer.Option(help="folder that keeps the teacher's maps")] = None,
    seed: Annotated[int, typer.Option(help="of data order, augmentation and random weights")] = 0,
    device: Device = "cpu",
    precision: Annotated[str, typer.Option(help="fp32 or bf16, of the forward pass")] = "fp32",
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the output folder")] = False,
) -> None:
    """Train a YOLO student with a teacher, or on labels alone to compare; weights/best.pt is a plain checkpoint."""
    if context.invoked_subcommand is not None:
        return
    if data is None or output is None:
        raise InputError("distill needs a data set and a folder for the run; give --data FILE.yaml and -o FOLDER")
    _need_training_libraries()
    from edgekd.models import weights
    from edgekd.train.distill.recipes import load_recipe

    if method not in ("none", "feature", "ds2d2"):
        raise InputError(f"the method is {method!r}, expected none, feature or ds2d2; give another --method")
    if precision not in ("fp32", "bf16"):
        raise InputError(f"the precision is {precision!r}, expected fp32 or bf16; give another --precision")
    source = student if student.endswith((".yaml", ".pt")) else str(weights.resolve(student))
    chosen = load_recipe(recipe).with_schedule(epochs=epochs, imgsz=imgsz, batch=batch)
    with _log_on_stderr():
        from edgekd.train.distill.job import DistillJob, distill

        job = DistillJob(
            data,
            source,
            output,
            method,  # type: ignore[arg-type]
            teacher,
            amplifier=amplifier,
            recipe=chosen,
            seed=seed,
            device=device,
            precision=precision,  # type: ignore[arg-type]
            resume=resume,
            feature_cache=feature_cache,
        )
        metrics = distill(job)
    _print_result(output, metrics)


@app.command()
def strip(
    checkpoint: Annotated[Path, typer.Argument(help="resume.pt, last.pt or any Ultralytics detection checkpoint")],
    output: Annotated[Path, typer.Option("-o", "--output", help="plain checkpoint to write (.pt)")],
) -> None:
    """Write a plain Ultralytics checkpoint from an interrupted run."""
    _need_training_libraries()
    with _log_on_stderr():
        from edgekd.train.checkpoint import strip as write_plain

        write_plain(checkpoint, output)
    typer.echo(f"{output}: a plain DetectionModel")


@app.command("train-amplifier")
def train_amplifier(
    data: Data,
    output: Output,
    teacher: Annotated[Path, typer.Option(help="detector (.pt) whose head is trained on its high frequencies")],
    recipe: RecipeName = "default",
    epochs: Epochs = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    device: Device = "cpu",
) -> None:
    """Train the high-frequency amplifier of DS2D2: the teacher's head, on the detail bands of its own features."""
    _need_training_libraries()
    from edgekd.train.distill.recipes import load_recipe

    chosen = load_recipe(recipe).with_schedule(epochs=epochs, imgsz=imgsz, batch=batch)
    with _log_on_stderr():
        from edgekd.train.distill.amplifier import AmplifierJob
        from edgekd.train.distill.amplifier import train_amplifier as train

        metrics = train(AmplifierJob(data, teacher, output, chosen.schedule, device=device))
    _print_result(output, metrics)


def _need_training_libraries() -> None:
    from edgekd.environment import has_module

    missing = [name for name in ("torch", "ultralytics", "timm", "matplotlib") if not has_module(name)]
    if missing:
        raise BackendUnavailable(f"training needs {', '.join(missing)}; install them with: pip install 'edgekd[train]'")


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    """Ultralytics writes its log and bars to stdout; ours belongs to results. It may neither install nor fetch."""
    os.environ.setdefault("YOLO_AUTOINSTALL", "false")
    os.environ.setdefault("ULTRALYTICS_SAFE_LOAD", "1")
    with contextlib.redirect_stdout(sys.stderr):
        from ultralytics.utils import LOGGER

        for handler in LOGGER.handlers:
            if hasattr(handler, "setStream"):
                handler.setStream(sys.stderr)
        yield


def _print_result(output: Path, metrics: dict[str, Any]) -> None:
    if not metrics:  # only the first of several processes has any
        return
    for name, value in metrics.items():
        typer.echo(f"{name.removeprefix('metrics/').removesuffix('(B)')}: {value:.4f}")
    typer.echo(f"{output / 'weights' / 'best.pt'}: a plain Ultralytics checkpoint")
