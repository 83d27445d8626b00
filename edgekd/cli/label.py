"""`edgekd label`: boxes, given or found, become masks, and masks a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def label(
    bundle: Annotated[Path, typer.Argument(help="bundle written by build-engine")],
    output: Annotated[Path, typer.Option("-o", "--output", help="new folder of the data set")],
    sources: Annotated[list[Path] | None, typer.Argument(help="pictures and folders; of --boxes their folder")] = None,
    boxes: Annotated[Path | None, typer.Option(help="boxes: COCO, YOLO, Pascal VOC, DOTA; default: detected")] = None,
    part: Annotated[str, typer.Option(help="part of a .yaml that is given as --boxes")] = "train",
    limit: Annotated[int | None, typer.Option(help="take the first so many pictures", min=1)] = None,
    accept: Annotated[float, typer.Option(help="score from which a mask is taken, 0 to 1")] = 0.8,
    drop: Annotated[float, typer.Option(help="score below which a mask is left out, 0 to 1")] = 0.5,
    confidence: Annotated[float, typer.Option(help="lowest confidence of a detected box")] = 0.25,
    val_fraction: Annotated[float, typer.Option(min=0.0, max=0.9, help="share of pictures for validation")] = 0.2,
    seed: Annotated[int, typer.Option(help="of the split")] = 0,
    json_file: Annotated[Path | None, typer.Option("--json", help="write the report here as well")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: the backend's choice", min=1)] = None,
) -> None:
    """Turn boxes into masks and write them as a data set; masks between the two scores are shown in look_at.jpg."""
    from edgekd.cli.console import log, out, tracked, write_json
    from edgekd.data.label import Thresholds
    from edgekd.data.label_job import LabelJob, label_to_folder

    job = LabelJob(
        bundle=bundle,
        output=output,
        sources=sources or (),
        boxes=boxes,
        part=part,
        limit=limit,
        thresholds=Thresholds(accept=accept, drop=drop),
        confidence=confidence,
        val_fraction=val_fraction,
        seed=seed,
        n_threads=threads,
    )
    report = label_to_folder(job, tracked("masking"))
    write_json(json_file, report)
    counts = ("accepted", "to_look_at", "dropped", "boxes_outside")
    out.print(", ".join(f"{report[f'n_{name}']} {name.replace('_', ' ')}" for name in counts))
    if report["incomplete_pictures"]:
        log.print(f"{len(report['incomplete_pictures'])} pictures lost an object; complete them or leave them out")
    out.print(f"{output}: next, look at look_at.jpg; edgekd finetune --data {output / 'annotations.json'}")
