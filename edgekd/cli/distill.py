"""`edgekd distill`: a student learns from labels and a teacher; what goes with it is in `distill_tools`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.choices import DistillMethod, TrainingPrecision
from edgekd.cli.distill_recipe import recipe as print_recipe
from edgekd.cli.distill_tools import (
    TRAINING_MODULES,
    Batch,
    Device,
    Epochs,
    Imgsz,
    RecipeName,
    print_metrics,
    strip,
    train_amplifier,
)
from edgekd.errors import InputError

app = typer.Typer()
app.command("recipe")(print_recipe)
app.command("strip")(strip)
app.command("train-amplifier")(train_amplifier)

Student = Annotated[str, typer.Option(help="checkpoint, name of `edgekd weights list`, or .yaml (random)")]
Teacher = Annotated[Path | None, typer.Option(help="detector (.pt) or DINOv2/DINOv3 ViT (.safetensors, .pth)")]


@app.callback(invoke_without_command=True)
def run(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="data set in Ultralytics' YAML, see edgekd data")] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="folder of the run")] = None,
    student: Student = "yolo11n",
    teacher: Teacher = None,
    method: Annotated[DistillMethod, typer.Option(help="inherit: first weights alone; none: labels alone")] = "ds2d2",
    recipe: RecipeName = "default",
    epochs: Epochs = None,
    imgsz: Imgsz = None,
    batch: Batch = None,
    amplifier: Annotated[Path | None, typer.Option(help="checkpoint of `edgekd distill train-amplifier`")] = None,
    feature_cache: Annotated[Path | None, typer.Option(help="folder that keeps the teacher's maps")] = None,
    seed: Annotated[int, typer.Option(help="of data order, augmentation and random weights")] = 0,
    device: Device = "cpu",
    precision: Annotated[TrainingPrecision, typer.Option(help="of the forward pass")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all cores", min=1)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the output folder")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the metrics")] = None,
) -> None:
    """Train a YOLO student with a teacher, or on labels alone to compare; weights/best.pt is a plain checkpoint."""
    if context.invoked_subcommand is not None:
        return
    if data is None or output is None:
        raise InputError("distill needs a data set and a folder for the run; give --data FILE.yaml and -o FOLDER")
    from edgekd.environment import need_modules
    from edgekd.models.weights import resolve_student
    from edgekd.train.distill.recipes import load_recipe
    from edgekd.train.run_folder import log_on_stderr

    need_modules("training", TRAINING_MODULES, "train")
    source = resolve_student(student)
    chosen = load_recipe(recipe).with_schedule(epochs=epochs, imgsz=imgsz, batch=batch)
    with log_on_stderr():
        from edgekd.train.distill.job import DistillJob, distill

        job = DistillJob(
            data=data,
            student=source,
            output=output,
            method=method,
            teacher=teacher,
            amplifier=amplifier,
            recipe=chosen,
            seed=seed,
            device=device,
            precision=precision,
            resume=resume,
            feature_cache=feature_cache,
            n_threads=threads,
        )
        metrics = distill(job)
    print_metrics(metrics, output, json_file)
