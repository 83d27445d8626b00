"""`edgekd finetune`: TinySAM or SAM3 learns a user's own masks without losing what it could do; crop learns anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.choices import CropSizeName, SegmenterName

NEEDS = {
    "crop": (("torch", "matplotlib"), "train"),
    "tinysam": (("torch", "matplotlib", "timm"), "train"),
    "sam3": (("torch", "matplotlib", "timm", "transformers"), "train,sam3"),
}
Data = Annotated[Path, typer.Option(help="COCO JSON with polygons, or a folder of images/ and labels/ (YOLO polygons)")]
Images = Annotated[Path | None, typer.Option(help="pictures of the COCO JSON; by default images/ beside it")]
Weights = Annotated[str | None, typer.Option(help="tinysam.pth, best.pt, a name such as tinysam-nwpu, SAM3's folder")]
Split = Annotated[Path | None, typer.Option(help="JSON lists train and validation of file names; default: a fifth")]
Teacher = Annotated[
    Path | None, typer.Option(help="tinysam: SamModel folder or .pth; crop: bundle that draws masks of labelled boxes")
]
Stages = Annotated[str | None, typer.Option(help="1 adapter and last blocks, 2 mask head, 3 both: 1,2,3 (crop: 1)")]
Kept = Annotated[Path | None, typer.Option(help="labelled pictures of the original task, to keep it on")]


def finetune(
    data: Data,
    output: Annotated[Path, typer.Option("-o", "--output", help="folder of the run")],
    model: Annotated[SegmenterName, typer.Option(help="the network")] = "tinysam",
    images: Images = None,
    weights: Weights = None,
    split: Split = None,
    teacher: Teacher = None,
    size: Annotated[CropSizeName, typer.Option(help="of the crop segmenter: crops of 64, 96 or 128 px")] = "M",
    stages: Stages = None,
    steps: Annotated[int | None, typer.Option(min=1, help="per stage: 300 (crop: 2400)")] = None,
    lr: Annotated[float | None, typer.Option(min=0, help="of the heads: 2e-4, trained TinySAM 2e-5, crop 2e-3")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="crops per step: 4 (crop: 32)")] = None,
    accumulate: Annotated[int, typer.Option(min=1, help="batches per step")] = 1,
    imgsz: Annotated[int | None, typer.Option(min=32, help="side of the crops, px: 224 (crop: of its size)")] = None,
    validation_px: Annotated[int | None, typer.Option(min=32, help="longer side at validation, px: 1024")] = None,
    adapter_rank: Annotated[int, typer.Option(min=0, help="rank of the spectral adapter; TinySAM: 0 is none")] = 0,
    keep: Annotated[float, typer.Option(min=0, max=1, help="share of the earlier quality to keep, else exit 3")] = 0.95,
    keep_data: Kept = None,
    save_every: Annotated[int, typer.Option(min=1, help="steps between resume files; interrupts save too")] = 100,
    detail: Annotated[float, typer.Option(min=0, help="crop: weight of the masks' Haar detail bands")] = 0.0,
    oriented: Annotated[bool, typer.Option("--oriented", help="crop: turned with each object")] = False,
    seed: Annotated[int, typer.Option(help="of split, weights and data order")] = 0,
    fp32: Annotated[bool, typer.Option("--fp32", help="no bf16; default: bf16 where the device has it")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="continue the run in the output folder")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report here as well")] = None,
) -> None:
    """Fine-tune a promptable segmenter on polygons, or train one from nothing (no --weights)."""
    from dataclasses import replace

    from edgekd.cli.console import StepBar, log, out, write_json
    from edgekd.environment import need_modules
    from edgekd.models.weights import resolve

    need_modules("training", *NEEDS[model])
    from edgekd.train.finetune.job import FinetuneJob, config_for, report_lines, run_job

    config = config_for(model, stages, steps, lr, seed, weights is not None)
    job = FinetuneJob(
        model=model,
        data=data,
        output=output,
        config=replace(config, accumulate=accumulate, amp=False if fp32 else None, keep=keep, save_every=save_every),
        images=images,
        weights=resolve(weights) if weights else None,
        split=split,
        imgsz=imgsz,
        validation_px=validation_px,
        batch=batch,
        adapter_rank=adapter_rank,
        teacher=teacher,
        keep_data=keep_data,
        resume=resume,
        size=size,
        detail_weight=detail,
        oriented=oriented,
    )
    with StepBar(job.n_steps) as bar:
        report = run_job(job, bar.show, log.print)
    write_json(json_file, report)
    for line in report_lines(report, output):
        out.print(line)
