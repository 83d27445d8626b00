"""`edgekd finetune`: TinySAM or SAM3 learns a user's own masks without losing what it could do; crop learns anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from edgekd.cli.console import log, out, write_text
from edgekd.errors import BackendUnavailable, InputError

if TYPE_CHECKING:
    from edgekd.train.finetune.job import SegmenterName
    from edgekd.train.finetune.loop import FinetuneConfig

Data = Annotated[
    Path, typer.Option(help="COCO JSON with polygons, or a folder with images/ and labels/ (YOLO polygons)")
]
Output = Annotated[Path, typer.Option("-o", "--output", help="folder of the run")]
Images = Annotated[Path | None, typer.Option(help="pictures of the COCO JSON; by default images/ beside it")]
Weights = Annotated[str | None, typer.Option(help="tinysam.pth, best.pt, a name such as tinysam-nwpu, SAM3's folder")]
Split = Annotated[Path | None, typer.Option(help="JSON lists train and validation of file names; default: a fifth")]
Teacher = Annotated[
    Path | None, typer.Option(help="tinysam: SamModel folder or .pth; crop: bundle that draws masks of labelled boxes")
]


def finetune(
    data: Data,
    output: Output,
    model: Annotated[str, typer.Option(help="tinysam, sam3 or crop")] = "tinysam",
    images: Images = None,
    weights: Weights = None,
    split: Split = None,
    teacher: Teacher = None,
    size: Annotated[str, typer.Option(help="of the crop segmenter: S, M or L (crops of 64, 96 or 128 px)")] = "M",
    stages: Annotated[
        str | None, typer.Option(help="1 adapter and last blocks, 2 mask head, 3 both: 1,2,3 (crop: 1 alone)")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="per stage: 300 (crop: 2400)")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="learning rate of the heads: 2e-4 (crop: 2e-3)")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="crops per step: 4 (crop: 32)")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="batches per step")] = 1,
    imgsz: Annotated[int | None, typer.Option(min=32, help="side of the crops, px: 224 (crop: of its size)")] = None,
    validation_px: Annotated[int | None, typer.Option(min=32, help="longer side at validation, px: 1024")] = None,
    adapter_rank: Annotated[int, typer.Option(min=0, help="rank of the spectral adapter; TinySAM: 0 is none")] = 0,
    keep: Annotated[float, typer.Option(min=0, max=1, help="share of the earlier quality to keep, else exit 3")] = 0.95,
    keep_data: Annotated[
        Path | None, typer.Option(help="labelled pictures of the original task, to keep it on")
    ] = None,
    save_every: Annotated[int, typer.Option(min=1, help="steps between resume files; interrupts save too")] = 100,
    detail: Annotated[float, typer.Option(min=0, help="crop: weight of the masks' Haar detail bands")] = 0.0,
    seed: Annotated[int, typer.Option(help="of split, weights and data order")] = 0,
    fp32: Annotated[bool, typer.Option("--fp32", help="no bf16 autocast")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the output folder")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report here as well")] = None,
) -> None:
    """Fine-tune a promptable segmenter on polygons, or train one from nothing (no --weights)."""
    _check(model)
    from edgekd.models.weights import resolve
    from edgekd.train.finetune.job import FinetuneJob, run_job

    config = replace(
        _config(model, stages, steps, seed), accumulate=accumulate, amp=not fp32, keep=keep, save_every=save_every
    )
    job = FinetuneJob(
        _named(model),
        data,
        output,
        config if lr is None else replace(config, learning_rate=lr),
        images=images,
        weights=None if weights is None else resolve(weights),
        split=split,
        imgsz=imgsz,
        validation_px=validation_px,
        batch=batch or (32 if model == "crop" else 4),
        adapter_rank=adapter_rank,
        teacher=teacher,
        keep_data=keep_data,
        resume=resume,
        size=size,
        detail_weight=detail,
    )
    with _Progress(sum(stage.n_steps for stage in config.stages)) as progress:
        report = run_job(job, progress.advance, log.print)
    if json_file is not None:
        write_text(json_file, json.dumps(report, indent=1))
    _print_report(report, output)


def _config(model: str, stages: str | None, steps: int | None, seed: int) -> FinetuneConfig:
    """The settings with which this network learns well."""
    from edgekd.train.finetune.job import parse_stages
    from edgekd.train.finetune.loop import FinetuneConfig

    if model != "crop":
        return FinetuneConfig(parse_stages(stages or "1,2,3", steps or 300), seed=seed)
    from edgekd.train.finetune.crop import CROP_STEPS, crop_config

    if stages not in (None, "1"):
        raise InputError(f"the stages are {stages!r} and the crop segmenter learns in one; leave out --stages")
    return crop_config(steps or CROP_STEPS, seed)


def _named(model: str) -> SegmenterName:
    from edgekd.train.finetune.job import SegmenterName

    if model in get_args(SegmenterName):
        return model  # type: ignore[return-value]
    raise InputError(f"the model is {model!r}, expected tinysam, sam3 or crop; give another --model")


def _check(model: str) -> None:
    from edgekd.environment import has_module

    needed = {"tinysam": ("timm",), "sam3": ("timm", "transformers"), "crop": ()}.get(model, ())
    missing = [name for name in ("torch", "matplotlib", *needed) if not has_module(name)]
    if missing:
        extra = "train,sam3" if model == "sam3" else "train"
        raise BackendUnavailable(
            f"training needs {', '.join(missing)}; install them with: pip install 'edgekd[{extra}]'"
        )
    _named(model)


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
