"""A fine-tuning run as a user orders it: paths and numbers in, a task built, trained, reported and drawn.

In: a `FinetuneJob`. Out: the run's folder (`best.pt`, `resume.pt`, `report.json`, `steps.csv`, `curves.png`) and the
report. The validation pictures are named by a split file or drawn once by seed; either way the report records them.
"""

from __future__ import annotations

import csv
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekd.choices import CropSizeName, SegmenterName
from edgekd.data.labels import LabelledPicture
from edgekd.data.read import read_labels
from edgekd.errors import DataError, InputError, TrainingError
from edgekd.files import said
from edgekd.train.finetune.averaged import Stage
from edgekd.train.finetune.crops import CropRecipe
from edgekd.train.finetune.loop import BEST_FILE, FinetuneConfig, SegmenterTask, StepWatch, finetune, with_arithmetic

NWPU_SPLIT = Path(__file__).parents[2] / "data/splits/nwpu_seed0.json"
VALIDATION_SHARE = 0.2
N_RETENTION_PICTURES = 8
CROP_PX, VALIDATION_PX = 224, 1024
TRAINED_RATE = 2e-5
"""Learning rate of a TinySAM that was trained before: the first steps of AdamW move every weight by the whole rate in
one direction. `tinysam-nwpu` keeps its mIoU with it over twenty steps of each stage (`bench_finetune.py --steps 20`);
other rates were compared on few pictures."""
FREE_BYTES = 1 << 30
"""Space for two resume files of TinySAM and a report, with room to spare."""


@dataclass(frozen=True, kw_only=True)
class FinetuneJob:
    """What `edgekd finetune` was asked for.

    Attributes:
        data: a COCO JSON, or a folder with images/ and labels/ of YOLO polygons.
        images: folder of the pictures of a COCO JSON; by default `images` beside it, else its own folder.
        weights: a TinySAM or MobileSAM checkpoint, a folder of SAM3; None trains TinySAM from nothing.
        split: JSON with lists `train` and `validation` of file names; None draws a fifth for validation by seed.
        imgsz: side of the training crops, by default 224 (crop segmenter: that of its size); validation_px: longer
            side of whole pictures, by default 1024. SAM3 brings its own sizes.
        batch: crops per step, by default 4 (crop segmenter: 32).
        adapter_rank: rank of the spectral adapter, 0 for none.
        teacher: checkpoint or SamModel folder for mask distillation of TinySAM; for crop a bundle of the kind sam,
            which draws the masks of objects that are labelled with boxes only.
        keep_data: labelled pictures of the original task, on which the quality must be kept; by default a few of the
            validation pictures stand in, which say nothing of what else the network could do.
        size: S, M or L of the crop segmenter; detail_weight: of the Haar detail bands in its loss; oriented: its crops
            are turned with the smallest box around each object, as those of an oriented detector are.
    """

    model: SegmenterName
    data: Path
    output: Path
    config: FinetuneConfig
    images: Path | None = None
    weights: Path | None = None
    split: Path | None = None
    imgsz: int | None = None
    validation_px: int | None = None
    batch: int | None = None
    adapter_rank: int = 0
    teacher: Path | None = None
    keep_data: Path | None = None
    resume: bool = False
    size: CropSizeName = "M"
    detail_weight: float = 0.0
    oriented: bool = False

    @property
    def n_steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.n_steps for stage in self.config.stages)

    @property
    def crops_per_step(self) -> int:
        """The batch that was asked for, or that with which this network learns well."""
        return self.batch or (32 if self.model == "crop" else 4)


@dataclass(frozen=True)
class Samples:
    """The pictures of a run: to learn from, to validate on, and those whose masks must not get worse."""

    train: Sequence[LabelledPicture]
    validation: Sequence[LabelledPicture]
    retention: Sequence[LabelledPicture]


def config_for(
    model: SegmenterName,
    stages: str | None,
    n_steps: int | None,
    learning_rate: float | None,
    seed: int,
    from_weights: bool = False,
) -> FinetuneConfig:
    """The settings with which a network learns well, with what a user wants otherwise.

    Args:
        model: the network.
        stages: such as "1,2,3"; None takes all that the network has.
        n_steps: per stage; None takes 300, for the crop segmenter 2400.
        learning_rate: of the heads; None takes the network's own, which is lower where it was trained before.
        seed: of split, weights and data order.
        from_weights: the network was trained before.

    Raises:
        InputError: `stages` are not stages of the network.
    """
    if model == "crop":
        from edgekd.train.finetune.crop import CROP_STEPS, crop_config

        if stages not in (None, "1"):
            raise InputError(f"stages is {stages!r} and the crop segmenter learns in one, expected 1; leave it out")
        config = crop_config(n_steps or CROP_STEPS, seed)
    else:
        config = FinetuneConfig(parse_stages(stages or "1,2,3", n_steps or 300), seed=seed)
        if model == "tinysam" and from_weights:
            config = replace(config, learning_rate=TRAINED_RATE)
    return config if learning_rate is None else replace(config, learning_rate=learning_rate)


def parse_stages(text: str, n_steps: int) -> tuple[Stage, ...]:
    """'1,2,3' and steps per stage to stages. Raises InputError."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError as reason:
        raise InputError(f"stages is {text!r}, expected numbers such as 1,2,3") from reason
    if not numbers or not set(numbers) <= {1, 2, 3}:
        raise InputError(f"stages is {text!r}, expected some of 1, 2 and 3, such as 1,2,3")
    return tuple(Stage(number, n_steps) for number in numbers)


def run_job(job: FinetuneJob, on_step: StepWatch, say: Callable[[str], None]) -> dict[str, Any]:
    """Check, build, train, report. Raises InputError, DataError, ModelError, TrainingError, GateFailed, Interrupted."""
    _check_space(job.output)
    with_boxes = job.model == "crop" and job.teacher is not None
    train, validation = split_samples(read_samples(job.data, job.images, with_boxes), job)
    kept = validation[:N_RETENTION_PICTURES] if job.keep_data is None else read_samples(job.keep_data, None)
    task = build_task(job, Samples(train, validation, kept), say)
    _say_parts(task, job.config.stages, say)
    if job.keep_data is None and job.weights is not None:
        say("retention is measured on validation pictures of the new task; name pictures of the old one as keep data")
    config = with_arithmetic(job.config, next(task.model.parameters()).device)
    say(f"arithmetic: {'bf16, losses in fp32' if config.amp else 'fp32'}")
    report = finetune(task, config, job.output, job.resume, on_step)
    report["data"] = {
        "n_train": len(train),
        "validation": [s.path.name for s in validation],
        "retention": [s.path.name for s in kept],
        "retention_task": "the new task" if job.keep_data is None else "the original task",
    }
    text = json.dumps(report, indent=1)
    (job.output / "report.json").write_text(text)
    plot_losses(job.output / "steps.csv", job.output / "curves.png")
    return report


def report_lines(report: Mapping[str, Any], folder: Path) -> list[str]:
    """What the report of the run in `folder` says of quality and retention, one line per number."""
    lines = []
    for stage in report["stages"]:
        name = "before" if stage["stage"] == 0 else f"stage {stage['stage']}"
        for what, quality in stage["quality"].items():
            lines.append(f"{name}: {what} {quality['miou'] if isinstance(quality, dict) else quality}")
        for kind, kept in stage.get("retention", {}).items():
            lines.append(f"{name}: {kind} keeps {100 * kept['kept']:.1f} %, agreement {kept['agreement']:.3f}")
    return [*lines, f"{folder / BEST_FILE}: the averaged weights, {report['train_seconds']:.0f} s of training"]


def read_samples(data: Path, images: Path | None, with_boxes: bool = False) -> list[LabelledPicture]:
    """The pictures with masks of labels of any format; `images` names the folder of the pictures of a COCO JSON.

    `with_boxes` keeps objects that have a box only.
    """
    labels = read_labels(data, images, split="train")
    if not with_boxes:
        return list(labels.for_masks().pictures)
    return [picture for picture in labels.without_crowds().pictures if len(picture)]


def split_samples(
    samples: Sequence[LabelledPicture], job: FinetuneJob
) -> tuple[list[LabelledPicture], list[LabelledPicture]]:
    """Training and validation pictures, by the split file or drawn by the seed. Raises DataError when one is empty."""
    if job.split is None:
        names = sorted(s.path.name for s in samples)
        random.Random(job.config.seed).shuffle(names)
        validation = set(names[: max(1, round(VALIDATION_SHARE * len(names)))])
        train = set(names) - validation
    else:
        try:
            lists = json.loads(job.split.read_text())
            train, validation = set(lists["train"]), set(lists["validation"])
        except (OSError, ValueError, KeyError, TypeError) as reason:
            raise DataError(
                f"{job.split} is not a split file ({reason}); write JSON lists train and validation"
            ) from reason
    parts = [s for s in samples if s.path.name in train], [s for s in samples if s.path.name in validation]
    if not all(parts) or train & validation:
        raise DataError(
            f"the split leaves {len(parts[0])} pictures to train and {len(parts[1])} to validate with "
            f"{len(train & validation)} in both; name pictures of the data set, each once, in `split`"
        )
    return parts


def build_task(job: FinetuneJob, samples: Samples, say: Callable[[str], None] = lambda line: None) -> SegmenterTask:
    """The network with its data. Raises InputError, ModelError and TrainingError."""
    if job.model == "crop":
        from edgekd.train.finetune.crop_job import crop_task

        return crop_task(job, samples.train, samples.validation)
    if job.oriented:
        raise InputError(f"oriented is set and the model is {job.model}, expected crop; leave it out")
    return _tinysam_task(job, samples, say) if job.model == "tinysam" else _sam3_task(job, samples)


def _sam3_task(job: FinetuneJob, samples: Samples) -> SegmenterTask:
    if job.weights is None:
        raise TrainingError("SAM3 is fine-tuned, never trained from nothing; give its folder as `weights`")
    given = {"teacher": job.teacher, "imgsz": job.imgsz, "validation_px": job.validation_px}
    unused = [name for name, value in given.items() if value is not None]
    if unused:
        raise InputError(
            f"{' and '.join(unused)} cannot be chosen for SAM3, which brings its own size and has no mask teacher; "
            "leave it out"
        )
    from transformers import AutoTokenizer

    from edgekd.models.sam3 import ADAPTER_RANK, load_sam3
    from edgekd.train.finetune.sam3 import Sam3Data, Sam3Task

    model = load_sam3(job.weights, job.adapter_rank or ADAPTER_RANK)
    tokenizer = AutoTokenizer.from_pretrained(job.weights, local_files_only=True)

    def tokens(name: str) -> tuple[Any, Any]:
        found = tokenizer(name, padding="max_length", max_length=32, truncation=True, return_tensors="pt")
        return found["input_ids"], found["attention_mask"]

    side = int(model.config.vision_config.backbone_config.image_size)
    recipe = CropRecipe(side_px=side, frames_px=((side, 1.0),))
    data = Sam3Data(samples.train, samples.validation, samples.retention, tokens, recipe, job.crops_per_step)
    return Sam3Task(model, data)


def _tinysam_task(job: FinetuneJob, samples: Samples, say: Callable[[str], None]) -> SegmenterTask:
    import torch

    from edgekd.models.tinysam import TinySam, load_tinysam
    from edgekd.train.finetune.sam import TinySamData, TinySamTask
    from edgekd.train.finetune.teacher import load_teacher

    side = CROP_PX if job.imgsz is None else job.imgsz
    if side % 32 or side < 64:
        raise InputError(f"imgsz is {side}, which does not fit the encoder, expected a multiple of 32 from 64")
    torch.manual_seed(job.config.seed)
    model = TinySam(draws_prompts=True) if job.weights is None else load_tinysam(job.weights)
    data = TinySamData(
        samples.train,
        samples.validation,
        samples.retention,
        recipe=CropRecipe(side_px=side),
        crops_per_step=job.crops_per_step,
        validation_px=(VALIDATION_PX if job.validation_px is None else job.validation_px,),
    )
    teacher = None if job.teacher is None else load_teacher(job.teacher)
    task = TinySamTask(model, data, job.adapter_rank, from_nothing=job.weights is None, teacher=teacher)
    if "point" not in task.kinds:
        say(f"the weights know no single points: prompts of training and retention are {', '.join(task.kinds)}")
    return task


def _check_space(folder: Path) -> None:
    with said(folder):
        folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise TrainingError(
            f"{folder} has {free >> 20} MiB free, expected {FREE_BYTES >> 20}; free space, or change `output`"
        )


def _say_parts(task: SegmenterTask, stages: Sequence[Stage], say: Callable[[str], None]) -> None:
    from edgekd.train.finetune.freeze import count_parts, counts_table

    for number in dict.fromkeys(stage.number for stage in stages):
        say(f"stage {number}")
        for line in counts_table(count_parts(task.model, task.policy, number)):
            say(f"  {line}")


def plot_losses(steps: Path, output: Path) -> None:
    """Draw every column of `steps.csv` over the steps, smoothed over a fiftieth of the run."""
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot as plt

    with steps.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("stage", "step")]
    figure, axes = plt.subplots(1, len(names), figsize=(3.2 * len(names), 3), layout="constrained", squeeze=False)
    window = max(1, len(rows) // 50)
    for axis, name in zip(axes[0], names, strict=True):
        values = np.array([float(row[name]) for row in rows])
        axis.plot(np.convolve(values, np.ones(window) / window, mode="valid"))
        axis.set(title=name, xlabel="step")
        axis.grid(alpha=0.3)
    figure.savefig(output, dpi=110)
    plt.close(figure)
