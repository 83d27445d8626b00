"""`edgekd finetune`: TinySAM or SAM3 learns a user's own masks, in stages, without losing what it could do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgekd.cli.console import log, out, write_text
from edgekd.errors import BackendUnavailable, InputError

Data = Annotated[
    Path, typer.Option(help="COCO JSON with polygons, or a folder with images/ and labels/ (YOLO polygons)")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="folder of the run")]
Images = Annotated[Path | None, typer.Option(help="pictures of the COCO JSON; by default images/ beside it")]
Weights = Annotated[Path | None, typer.Option(help="tinysam.pth, mobile_sam.pt, best.pt, or SAM3's folder")]
Split = Annotated[Path | None, typer.Option(help="JSON lists train and validation of file names; default: a fifth")]
Teacher = Annotated[
    Path | None, typer.Option(help="larger segmenter whose masks are learned too (SamModel folder, .pth)")
]


def finetune(
    data: Data,
    output: Output,
    model: Annotated[str, typer.Option(help="tinysam or sam3")] = "tinysam",
    images: Images = None,
    weights: Weights = None,
    split: Split = None,
    teacher: Teacher = None,
    stages: Annotated[str, typer.Option(help="1 adapter and last blocks, 2 mask head, 3 both")] = "1,2,3",
    steps: Annotated[int, typer.Option(min=1, help="per stage")] = 300,
    lr: Annotated[float, typer.Option(min=0, help="learning rate of the heads")] = 2e-4,
    batch: Annotated[int, typer.Option(min=1, help="crops per step")] = 4,
    accumulate: Annotated[int, typer.Option(min=1, help="batches per step")] = 1,
    imgsz: Annotated[int | None, typer.Option(min=32, help="side of the crops, px: 224 (SAM3 brings its own)")] = None,
    validation_px: Annotated[int | None, typer.Option(min=32, help="longer side at validation, px: 1024")] = None,
    adapter_rank: Annotated[int, typer.Option(min=0, help="rank of the spectral adapter; TinySAM: 0 is none")] = 0,
    keep: Annotated[float, typer.Option(min=0, max=1, help="share of the earlier quality to keep, else exit 3")] = 0.95,
    keep_data: Annotated[
        Path | None, typer.Option(help="labelled pictures of the original task, to keep it on")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="steps between resume files; interrupts save too")] = 100,
    seed: Annotated[int, typer.Option(help="of split, weights and data order")] = 0,
    fp32: Annotated[bool, typer.Option("--fp32", help="no bf16 autocast")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the output folder")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report here as well")] = None,
) -> None:
    """Fine-tune a promptable segmenter on polygons, or train TinySAM from nothing (no --weights)."""
    _check(model)
    from edgekd.train.finetune.job import FinetuneJob, parse_stages, run_job
    from edgekd.train.finetune.loop import FinetuneConfig

    config = FinetuneConfig(
        parse_stages(stages, steps),
        learning_rate=lr,
        accumulate=accumulate,
        amp=not fp32,
        seed=seed,
        keep=keep,
        save_every=save_every,
    )
    job = FinetuneJob(
        _named(model),
        data,
        output,
        config,
        images=images,
        weights=weights,
        split=split,
        imgsz=imgsz,
        validation_px=validation_px,
        batch=batch,
        adapter_rank=adapter_rank,
        teacher=teacher,
        keep_data=keep_data,
        resume=resume,
    )
    with _Progress(sum(stage.n_steps for stage in config.stages)) as progress:
        report = run_job(job, progress.advance, log.print)
    if json_file is not None:
        write_text(json_file, json.dumps(report, indent=1))
    _print_report(report, output)


def _named(model: str) -> Literal["tinysam", "sam3"]:
    if model == "tinysam" or model == "sam3":
        return model  # type: ignore[return-value]
    raise InputError(f"the model is {model!r}, expected tinysam or sam3; give another --model")


def _check(model: str) -> None:
    from edgekd.environment import has_module

    _named(model)
    needed = ("torch", "timm", "matplotlib") if model == "tinysam" else ("torch", "timm", "matplotlib", "transformers")
    missing = [name for name in needed if not has_module(name)]
    if missing:
        extra = "train" if model == "tinysam" else "train,sam3"
        raise BackendUnavailable(
            f"training needs {', '.join(missing)}; install them with: pip install 'edgekd[{extra}]'"
        )


class _Progress:
    """A progress bar over all stages, on stderr."""

    def __init__(self, n_steps: int) -> None:
        from rich.progress import Progress

        self._bar = Progress(console=log)
        self._task = self._bar.add_task("starting", total=n_steps)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, stage: Any, step: int, losses: Mapping[str, float]) -> None:
        """Show one more step."""
        text = f"stage {stage.number} step {step + 1}/{stage.n_steps} loss {losses['total']:.3f}"
        self._bar.update(self._task, advance=1, description=text)


def _print_report(report: Mapping[str, Any], output: Path) -> None:
    for stage in report["stages"]:
        name = "before" if stage["stage"] == 0 else f"stage {stage['stage']}"
        for what, quality in stage["quality"].items():
            out.print(f"{name}: {what} {quality['miou'] if isinstance(quality, dict) else quality}")
        for kind, kept in stage.get("retention", {}).items():
            out.print(f"{name}: {kind} keeps {100 * kept['kept']:.1f} %, agreement {kept['agreement']:.3f}")
    out.print(f"{output / 'best.pt'}: the averaged weights, {report['train_seconds']:.0f} s of training")
