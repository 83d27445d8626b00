"""Oriented boxes with a trained network: from polygons to turned boxes, to a submission of DOTA, in Python and in C.

    python benchmarks/bench_oriented.py --assets DIR --work DIR [--part train ...]

`train` takes the smallest turned box around every polygon of NWPU VHR-10 (`edgekd data nwpu --turned`) and distills a
YOLO11n-obb that begins with the weights of the shipped upright detector. The last weights are measured, so that nothing
is chosen on the validation pictures. `accuracy` takes the average precision of turned boxes of the bundles, checks it
with pycocotools and shapely on the same boxes, and puts Ultralytics' own validation of the checkpoint beside it.
`boxes` compares 20 pictures with Ultralytics box by box, `c` the C library with Python. `dota` goes from a large
picture with DOTA's labels over tiles to the merged submission, and reads that back (`oriented_dota.py`).

With `--work` an interrupted run goes on where it stopped. The classes have DOTA's names.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oriented_dota
from result_file import result_path, write_result

from edgekd.data.labels import LabelledSet
from edgekd.data.published import read_nwpu
from edgekd.data.read import read_labels
from edgekd.data.write import write_dataset
from edgekd.measure import coco_metrics as coco
from edgekd.measure.accuracy import EvaluateOptions, evaluate
from edgekd.measure.turned_ap import evaluated_turned, label_corners, with_corners
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.oriented import corners_of, enclosing, turned_ious
from edgekd.runtime.sources import read_picture
from edgekd.types import ChainResult, Detections

PARTS = ("train", "accuracy", "boxes", "c", "dota")
SIDE_PX = 256
SCHEDULE: dict[str, Any] = {
    "epochs": 3, "imgsz": SIDE_PX, "batch": 8, "lr0": 1e-3, "warmup_epochs": 1, "mosaic": 0.0,
}  # fmt: skip
DOTA_NAMES = {"airplane": "plane", "vehicle": "small-vehicle"}
"""The other classes of NWPU VHR-10 have DOTA's names but for the underscore."""

AP_CONFIDENCE, SHOWN, IOU = 0.001, 0.25, 0.7
SAME_BOX_IOU, SAME_AP, SAME_MASK_IOU = 0.99, 1e-3, 0.995


def main() -> None:
    arguments = parse()
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = result_path("oriented", arguments.output)
    report: dict[str, Any] = json.loads(path.read_text()) if arguments.part and path.is_file() else {}
    report["settings"] = {
        "data": "NWPU VHR-10, recorded split, smallest turned boxes of the polygons", "schedule": SCHEDULE, "seed": 0,
        "student": "yolo11n-obb.yaml", "method": "inherit", "start": "yolo11n-nwpu", "input_px": SIDE_PX,
        "weights": "last", "threads": arguments.threads, "ap_confidence": AP_CONFIDENCE, "shown_confidence": SHOWN,
    }  # fmt: skip
    measured = {"train": train, "accuracy": accuracy, "boxes": boxes, "c": c_against_python, "dota": dota}
    for part in arguments.part or PARTS:
        report[part] = measured[part](arguments)
        print(json.dumps({part: report[part]}, indent=1), flush=True)
        print(write_result("oriented", report, arguments.output))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with data/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument(
        "--work", type=Path, required=True, help="data, run and bundles; those that are there are taken"
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this again; default: everything")
    parser.add_argument("--library", type=Path, help="libedgekd.so; default: it is built in the work folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def renamed(labels: LabelledSet) -> LabelledSet:
    """The same labels with DOTA's class names."""
    names = tuple(DOTA_NAMES.get(name, name.replace("_", "-")) for name in labels.class_names)
    pictures = tuple(replace(picture, class_names=names) for picture in labels.pictures)
    return replace(labels, class_names=names, pictures=pictures)


def splits_of(arguments: argparse.Namespace) -> dict[str, LabelledSet]:
    found = read_nwpu(arguments.assets / "data/nwpu_vhr10")
    return {split: renamed(labels.without_crowds()) for split, labels in found.items()}


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Distill the student; a run that was interrupted goes on."""
    from edgekd.train.distill.job import DistillJob, distill
    from edgekd.train.distill.recipes import Recipe, Schedule

    data, teacher, run = (arguments.work / name for name in ("data", "teacher.pt", "run"))
    if not (data / "data.yaml").is_file():
        write_dataset(splits_of(arguments), data, "turned")
    if not teacher.is_file():
        write_teacher(teacher, splits_of(arguments)["train"].class_names)
    job = DistillJob(
        data=data / "data.yaml", student="yolo11n-obb.yaml", output=run, method="inherit", teacher=teacher,
        recipe=Recipe(schedule=Schedule(**SCHEDULE)), resume=(run / "weights/resume.pt").is_file(),
    )  # fmt: skip
    metrics = distill(job)
    return {"best weights, Ultralytics' names": metrics} | {
        split: {"pictures": len(labels), "objects": labels.n_objects} for split, labels in splits_of(arguments).items()
    }


def write_teacher(path: Path, names: Sequence[str]) -> None:
    """The shipped detector with these class names: a student takes over the weights of classes of the same names."""
    import torch

    from edgekd.models.weights import SHIPPED_DETECTOR, export_shipped

    export_shipped(SHIPPED_DETECTOR, path)
    content = torch.load(path, weights_only=False)
    content["model"].names = dict(enumerate(names))
    torch.save(content, path)


def checkpoint(arguments: argparse.Namespace) -> Path:
    return Path(arguments.work / "run/weights/last.pt")


def write_models(detector: Path, folder: Path) -> None:
    """A model set of the trained detector and the shipped crop segmenter."""
    from edgekd.deploy.export import ExportOptions, detector_graph, export_graph, pipeline_of
    from edgekd.files import atomic_folder, sha256_of
    from edgekd.model_set import ModelSet, Source, listed_files, write_model_set
    from edgekd.models.crop_set import read_crop_part
    from edgekd.models.yolo11n import load_detector
    from edgekd.package_files import CROP_MODELS

    options, part = ExportOptions(detector_px=(SIDE_PX, SIDE_PX)), read_crop_part()
    network = load_detector(detector, oriented=True)
    source = Source(name="yolo11n-obb", sha256=sha256_of(detector), licence="AGPL-3.0 (Ultralytics)")
    with atomic_folder(folder, listed_files) as partial:
        stage = export_graph(detector_graph(network, options), partial / "detector.onnx", source, half=False)
        shutil.copyfile(CROP_MODELS / part.stage.file, partial / part.stage.file)
        pipeline = pipeline_of(network, "crop", options).model_copy(update={"crop": part.crop})
        stages = {"detector": stage, "segmenter": part.stage}
        write_model_set(partial, ModelSet.model_validate({"kind": "crop", "pipeline": pipeline, "stages": stages}))


def bundles(arguments: argparse.Namespace) -> dict[str, Path]:
    """The trained detector with the shipped crop segmenter, for both CPU backends."""
    from edgekd.deploy.build import BuildOptions, build_bundle

    work = arguments.work
    if not (work / "models").is_dir():
        write_models(checkpoint(arguments), work / "models")
    built = {backend: work / f"bundle-{backend}" for backend in ("openvino", "onnxruntime")}
    for backend, folder in built.items():
        if not folder.is_dir():
            build_bundle(work / "models", folder, BuildOptions(backend=backend, precision="fp32", square=True))
    return built


def validation(arguments: argparse.Namespace) -> LabelledSet:
    """The turned boxes of the validation pictures, from the files that training read."""
    return read_labels(arguments.work / "data/data.yaml", split="val").as_oriented()


def accuracy(arguments: argparse.Namespace) -> dict[str, Any]:
    """AP of turned boxes by edgekd, by the reference on the same boxes, and by Ultralytics."""
    from ultralytics import YOLO

    labels, report = validation(arguments), {}
    for backend, folder in bundles(arguments).items():
        found = evaluate(folder, labels, EvaluateOptions(segmenter=False), n_threads=arguments.threads)
        report[backend] = found.box | {"by_class": found.box_by_class}
    with Chain.open(bundles(arguments)["openvino"], arguments.threads) as chain:
        wanted = DetectOptions(confidence=AP_CONFIDENCE, iou=IOU, multi_label=True)
        own = [chain.detect(read_picture(p.path), wanted)[: coco.MAX_BOXES] for p in labels.pictures]
        single = replace(wanted, multi_label=False)
        own_single = [chain.detect(read_picture(p.path), single)[: coco.MAX_BOXES] for p in labels.pictures]
    reference = reference_ap(labels, own)
    report["pycocotools and shapely, the boxes of openvino"] = reference
    report["largest difference from the reference"] = {
        name: abs(report["openvino"][name] - value) for name, value in reference.items()
    }
    report["boxes of one class per anchor, exact IoU"] = {
        "edgekd": turned_ap(labels, own_single),
        "ultralytics": turned_ap(labels, list(predicted(arguments, labels, AP_CONFIDENCE))),
    }
    validated = YOLO(checkpoint(arguments)).val(
        data=str(arguments.work / "data/data.yaml"), imgsz=SIDE_PX, rect=False, device="cpu", workers=0, plots=False,
        verbose=False, project=str(arguments.work), name="val", exist_ok=True,
    )  # fmt: skip
    report["Ultralytics' validation, ProbIoU"] = {"ap": float(validated.box.map), "ap50": float(validated.box.map50)}
    report["holds"] = max(report["largest difference from the reference"].values()) <= SAME_AP
    return report


def predicted(arguments: argparse.Namespace, labels: LabelledSet, confidence: float) -> Iterator[Detections]:
    """What Ultralytics finds with the checkpoint."""
    from ultralytics import YOLO

    network = YOLO(checkpoint(arguments))
    for picture in labels.pictures:
        found = network.predict(
            read_picture(picture.path), imgsz=SIDE_PX, rect=False, conf=confidence, iou=IOU, max_det=coco.MAX_BOXES,
            device="cpu", verbose=False,
        )[0].obb  # fmt: skip
        corners = corners_of(found.xywhr.numpy()).astype(np.float32).reshape(-1, 4, 2)
        yield Detections(enclosing(corners), found.conf.numpy(), found.cls.numpy().astype(np.int32), corners)


def results_of(found: Sequence[Detections]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for image_id, each in enumerate(found, 1):
        rows = [
            {"image_id": image_id, "category_id": int(c), "score": float(s), "bbox": [*box[:2], *(box[2:] - box[:2])]}
            for box, s, c in zip(each.xyxy.astype(float), each.confidence, each.class_id, strict=True)
        ]
        results += with_corners(rows, each)
    return results


def turned_ap(labels: LabelledSet, found: Sequence[Detections], max_boxes: int = coco.MAX_BOXES) -> dict[str, float]:
    """AP of turned boxes by edgekd's evaluation."""
    truth = coco.coco_labels(labels.pictures, np.arange(len(labels.class_names), dtype=np.int32))
    values = coco.overall(evaluated_turned(truth, labels.pictures, results_of(found), max_boxes))
    return {name: values[name] for name in ("ap", "ap50")}


def reference_ap(labels: LabelledSet, found: Sequence[Detections]) -> dict[str, float]:
    """COCO's AP and AP50 by pycocotools with the IoU of shapely's polygons."""
    import shapely
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = coco.coco_labels(labels.pictures, np.arange(len(labels.class_names), dtype=np.int32))
    results = results_of(found)
    of_label = shapely.polygons(np.concatenate([label_corners(p) for p in labels.pictures]).astype(np.float64))
    of_result = shapely.polygons(np.stack([one["corners"] for one in results]).astype(np.float64))
    base = COCO()
    base.dataset = truth
    base.createIndex()

    class Evaluator(COCOeval):  # type: ignore[misc]
        def computeIoU(self, imgId: int, catId: int) -> Any:
            labels_here, found_here = self._gts[imgId, catId], self._dts[imgId, catId]
            if not labels_here or not found_here:
                return []
            ordered = sorted(found_here, key=lambda one: -one["score"])[: self.params.maxDets[-1]]
            a = of_result[[one["id"] - 1 for one in ordered]][:, None]
            b = of_label[[one["id"] - 1 for one in labels_here]][None]
            common = shapely.area(shapely.intersection(a, b))
            return common / (shapely.area(a) + shapely.area(b) - common)

    rows = [{name: value for name, value in one.items() if name != "corners"} for one in results]
    run = Evaluator(base, base.loadRes(rows), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return {"ap": float(run.stats[0]), "ap50": float(run.stats[1])}


def boxes(arguments: argparse.Namespace) -> dict[str, Any]:
    """Box by box against Ultralytics on 20 validation pictures in which the network finds something."""
    labels = validation(arguments)
    report: dict[str, Any] = {}
    expected = [(p, e) for p, e in zip(labels.pictures, predicted(arguments, labels, SHOWN), strict=True) if len(e)]
    for backend, folder in bundles(arguments).items():
        ious, n_different = [], 0
        with Chain.open(folder, arguments.threads) as chain:
            for picture, theirs in expected[:20]:
                ours = chain.detect(read_picture(picture.path), DetectOptions(SHOWN, IOU))
                n_different += abs(len(ours) - len(theirs))
                ious += pairs(theirs, ours)
        report[backend] = {
            "n_pictures": len(expected[:20]), "n_boxes": len(ious), "boxes on one side alone": n_different,
            "lowest IoU": min(ious), "holds": n_different == 0 and min(ious) >= SAME_BOX_IOU,
        }  # fmt: skip
    return report


def pairs(first: Detections, second: Detections) -> list[float]:
    """The best IoU of every box of one list with one of its class in the other."""
    assert first.corners is not None and second.corners is not None
    ious = turned_ious(first.corners, second.corners)
    ious[first.class_id[:, None] != second.class_id[None]] = 0
    return [float(row.max(initial=0)) for row in ious]


def c_against_python(arguments: argparse.Namespace) -> dict[str, Any]:
    """Boxes and masks of the C library against those of Python on 20 validation pictures."""
    from edgekd.capi.build import build_library
    from edgekd.capi.library import CChain, Library

    file = arguments.library or arguments.work / "capi/lib/libedgekd.so"
    if not file.is_file():
        build_library(arguments.work / "capi")
    bundle, options = bundles(arguments)["openvino"], ChainOptions(DetectOptions(SHOWN, IOU))
    ious, mask_ious, n_different = [], [], 0
    with Chain.open(bundle, 1) as python, CChain.open(Library(file), bundle, 1) as c:
        for picture in validation(arguments).spread(20).pictures:
            pixels = read_picture(picture.path)
            ours, theirs = python(pixels, options), c(pixels, options)
            n_different += abs(len(ours) - len(theirs))
            ious += pairs(ours.detections, theirs.detections)
            mask_ious += same_masks(ours, theirs)
    return {
        "n_pictures": 20, "n_boxes": len(ious), "boxes on one side alone": n_different, "lowest IoU": min(ious),
        "lowest IoU of masks": min(mask_ious),
        "holds": n_different == 0 and min(ious) >= SAME_BOX_IOU and min(mask_ious) >= SAME_MASK_IOU,
    }  # fmt: skip


def same_masks(first: ChainResult, second: ChainResult) -> list[float]:
    """IoU of the masks of two results with the same objects in the same order."""
    ious = []
    for index in range(min(len(first), len(second))):
        a, b = first.masks.full(index), second.masks.full(index)
        union = int((a | b).sum())
        ious.append(int((a & b).sum()) / union if union else 1.0)
    return ious


def dota(arguments: argparse.Namespace) -> dict[str, Any]:
    return oriented_dota.measure(arguments.work, splits_of(arguments), bundles(arguments)["openvino"], turned_ap)


if __name__ == "__main__":
    main()
