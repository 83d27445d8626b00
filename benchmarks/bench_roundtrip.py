"""Boxes given, labels out: how good are the masks that `edgekd label` makes, and what learns a network from them?

    python benchmarks/bench_roundtrip.py labels --assets DIR
    edgekd weights export yolo11n-nwpu -o yolo11n-nwpu.pt
    python benchmarks/bench_roundtrip.py students --assets DIR --weights yolo11n-nwpu.pt --work DIR

`labels` takes the boxes of NWPU VHR-10, lets the shipped crop segmenter mask them, and compares each mask with the
polygon of its object, by class, by size and by the score that decides whether `label` takes, shows or drops it. The
segmenter was trained on the polygons of the training pictures: their row says how well it remembers, the row of the
validation pictures says what somebody with boxes alone can expect of a segmenter that knows the classes.

`students` trains a YOLO11n-seg on the training pictures with the real polygons and one with the made masks, alike in
everything else, and validates both on the real polygons. Both begin with the same detector, whose backbone stays
frozen: who has boxes has a detector, and the masks are what there is to learn. It goes on where an interrupted run
stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from result_file import write_result

from edgekd.data.label import MaskedSet, Thresholds, mask_boxes
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.published import read_nwpu
from edgekd.data.write import fill_dataset, new_dataset
from edgekd.runtime.chain import Chain
from edgekd.train.finetune.quality import ObjectScore, summarise

ARMS = ("real polygons", "made masks")
EVERYTHING = Thresholds(accept=0.0, drop=0.0)
RECIPE: dict[str, Any] = {
    "batch": 8, "nbs": 8, "optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 1, "freeze": 10, "mosaic": 0.0,
    "flipud": 0.5, "seed": 0,
}  # fmt: skip
"""What both students share, in Ultralytics' words; `nbs` is the batch of one update, `freeze` counts layers."""
SCORES = ("taken, score of 0.8 and more", "shown", "dropped, score below 0.5")


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        work.mkdir(parents=True, exist_ok=True)
        splits = {
            split: labels.without_crowds().first(arguments.limit)
            for split, labels in read_nwpu(arguments.assets / "data/nwpu_vhr10").items()
        }
        with Chain.open(build(work), arguments.threads) as chain:
            asked = splits if arguments.part == "labels" else {"train": splits["train"]}
            masked = {split: mask_boxes(chain, labels, EVERYTHING) for split, labels in asked.items()}
        if arguments.part == "labels":
            results: dict[str, Any] = {split: quality(splits[split], masked[split]) for split in splits}
        else:
            results = students(arguments, work, splits, masked["train"])
    print(json.dumps(results, indent=1))
    settings = {
        "part": arguments.part, "data": "NWPU VHR-10, recorded split", "segmenter": "shipped crop network, fp32",
        "n_pictures": {split: len(labels) for split, labels in splits.items()}, "threads": arguments.threads,
    }  # fmt: skip
    if arguments.part == "students":
        settings |= {"epochs": arguments.epochs, "side_px": arguments.side, "start": arguments.weights.stem, **RECIPE}
    print(write_result(f"roundtrip_{arguments.part}", {"settings": settings, "results": results}, arguments.output))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("labels", "students"))
    parser.add_argument("--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with data/")
    parser.add_argument("--limit", type=int, help="take the first so many pictures of each part")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--work", type=Path, help="keep bundle, data and runs here, and take those that are there")
    parser.add_argument("--weights", type=Path, help="checkpoint from which both students start")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--side", type=int, default=256, help="input of the students, px")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def build(work: Path) -> Path:
    """The shipped crop segmenter; its detector is not asked."""
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.models.crop_set import copy_shipped_crop
    from edgekd.package_files import default_models

    if not (work / "bundle").is_dir():
        copy_shipped_crop(work / "models", default_models())
        build_bundle(work / "models", work / "bundle", BuildOptions(precision="fp32"), lambda line: None)
    return work / "bundle"


def quality(labels: LabelledSet, masked: MaskedSet) -> dict[str, Any]:
    """IoU of every made mask with its polygon; an object without a mask counts 0."""
    scores: list[ObjectScore] = []
    by_decision: dict[str, list[float]] = {name: [] for name in SCORES}
    decides = Thresholds()
    for truth, made in zip(labels.pictures, masked.labels.pictures, strict=True):
        for index, row in pairs(truth, made):
            iou, score = 0.0, 0.0
            mask = truth.mask(index) > 0
            if row is not None:
                found, score = made.mask(row) > 0, float(masked.scores[made.path][row])
                iou = float((mask & found).sum() / (mask | found).sum())
            scores.append(ObjectScore(truth.name_of(index), int(mask.sum()), iou, score))
            decision = 0 if score >= decides.accept else 1 if score >= decides.drop else 2
            by_decision[SCORES[decision]].append(iou)
    return summarise(scores) | {
        "by_decision": {
            name: {"n": len(ious), "miou": round(float(np.mean(ious)), 4) if ious else None}
            for name, ious in by_decision.items()
        }
    }


def pairs(truth: LabelledPicture, made: LabelledPicture) -> Iterator[tuple[int, int | None]]:
    """Each object and the row of its mask: objects keep their order, those with an empty mask are missing."""
    row = 0
    for index in range(len(truth)):
        if row < len(made) and (truth.xyxy[index] == made.xyxy[row]).all():
            yield index, row
            row += 1
        else:
            yield index, None


def students(
    arguments: argparse.Namespace, work: Path, splits: dict[str, LabelledSet], made: MaskedSet
) -> dict[str, Any]:
    """Mask AP of both on the real polygons of the validation pictures."""
    kept = tuple(picture.take(made.scores[picture.path] >= Thresholds().drop) for picture in made.labels.pictures)
    sets = {ARMS[0]: splits["train"], ARMS[1]: replace(made.labels, pictures=kept)}
    results: dict[str, Any] = {}
    for arm, train in sets.items():
        folder = work / arm.replace(" ", "-")
        if not (folder / "data.yaml").is_file():
            with new_dataset(folder) as partial:
                fill_dataset({"train": train, "val": splits["val"]}, partial, folder, "outline")
        results[arm] = train_and_validate(arguments, folder, work / f"{folder.name}-run") | {
            "n_objects": sum(len(picture) for picture in train.pictures)
        }
    real, own = (results[arm] for arm in ARMS)
    return results | {"percent kept": 100 * own["mask_ap"] / max(real["mask_ap"], 1e-9)}


def train_and_validate(arguments: argparse.Namespace, data: Path, run: Path) -> dict[str, float]:
    """Train with Ultralytics, from the last epoch that is on the disk; the result is kept beside the weights."""
    from ultralytics import YOLO

    answer, last = run / "answer.json", run / "weights" / "last.pt"
    if answer.is_file():
        return dict(json.loads(answer.read_text()))
    if last.is_file():
        epochs = (run / "results.csv").read_text().strip().count("\n") if (run / "results.csv").is_file() else 0
        if epochs < arguments.epochs:
            YOLO(last).train(resume=True)
    else:
        model = YOLO(own_architecture(run.with_name("student.yaml"), data)).load(arguments.weights)
        model.train(
            data=str(data / "data.yaml"), epochs=arguments.epochs, imgsz=arguments.side, device="cpu", cache="ram",
            workers=0, project=str(run.parent), name=run.name, exist_ok=True, plots=False, val=False, amp=False,
            verbose=False, **RECIPE,
        )  # fmt: skip
    found = YOLO(last).val(data=str(data / "data.yaml"), imgsz=arguments.side, device="cpu", workers=0, plots=False)
    numbers = {"mask_ap": float(found.seg.map), "mask_ap50": float(found.seg.map50), "box_ap": float(found.box.map)}
    answer.write_text(json.dumps(numbers))
    return numbers


def own_architecture(path: Path, data: Path) -> Path:
    """YOLO11n-seg with as many classes as the data has, so that the class scores of the start fit."""
    import yaml
    from ultralytics.nn.tasks import yaml_model_load

    description = yaml_model_load("yolo11n-seg.yaml")
    names = yaml.safe_load((data / "data.yaml").read_text())["names"]
    content = {name: description[name] for name in ("backbone", "head")}
    path.write_text(yaml.safe_dump(content | {"nc": len(names), "scales": {"n": description["scales"]["n"]}}))
    return path


if __name__ == "__main__":
    main()
