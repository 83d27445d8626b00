"""The chain against what a user would pick instead, in one run: Ultralytics YOLO + MobileSAM on PyTorch.

    python benchmarks/bench_chain.py --assets DIR

Both sides get the same pictures, the same weights (the segmenter's checkpoint is loaded as MobileSAM by Ultralytics, it
is the same network), the same boxes and the same number of threads. Every arm runs in its own process, in turns.
Correctness comes first: no time is written when edgekd's masks differ from those of the same weights in PyTorch, fp32,
on Ultralytics' boxes. Ultralytics' own masks are counted and not compared: it reads the decoder's single mask, and
TinySAM as trained here learns the three others only, so its score is near 0 and `conf` has to let it pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from result_file import write_result

BUNDLES = ("edgekd-auto-512", "edgekd-fp32-512", "edgekd-auto-1024", "edgekd-fp32-1024", "edgekd-auto-1024-square")
DETECTOR_BUNDLES = ("edgekd-auto-1024", "edgekd-auto-1024-square", "edgekd-fp32-1024")
PEER, DETECTOR_PEER = "ultralytics-pytorch", "ultralytics-openvino"
MIN_RUNS, MIN_SECONDS = 2, 1.0
N_PICTURES, N_ROUNDS, SETS = 10, 2, ("bus", "nwpu")
MIN_MASK_IOU = {"fp32": 0.999, "auto": 0.98}
LISTED_BELOW = 0.9


def main() -> None:
    """Prepare the weights, check, measure, write."""
    arguments = parse()
    if arguments.arm:
        print(json.dumps(run_arm(arguments)))
        return

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        prepare(arguments, work)
        known = picture_sets(arguments.assets, arguments.limit)
        sets = {key: known[key] for key in arguments.sets}
        parity = {key: check_parity(work, key, paths, arguments.bundles) for key, paths in sets.items()}
        results = {key: measure(work, key, paths, arguments) for key, paths in sets.items()}
    report = {
        "settings": {
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "sets": arguments.sets,
            "detector": arguments.detector,
            "segmenter": arguments.segmenter,
            "min_runs": MIN_RUNS,
            "min_seconds_per_picture": MIN_SECONDS,
            "statistic": "fastest run per picture, summed",
        },
        "parity": parity,
        "results": results,
    }
    asked = (arguments.limit, arguments.rounds, set(arguments.sets), set(arguments.bundles))
    whole = asked == (N_PICTURES, N_ROUNDS, set(SETS), set(BUNDLES))
    print(write_result("chain" if whole else "chain_trial", report, arguments.output))
    print(json.dumps({key: value["ratios"] for key, value in results.items()}, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with assets/ and data/"
    )
    parser.add_argument("--detector", default="yolo11n-nwpu", help="name or checkpoint for the NWPU pictures")
    parser.add_argument("--segmenter", default="tinysam-nwpu", help="name or checkpoint of a TinySAM")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    trial = "anything else is a trial, whose result is chain_trial and makes no table"
    parser.add_argument("--limit", type=int, default=N_PICTURES, help=f"NWPU pictures; {trial}")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS, help=f"turns of every arm; {trial}")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), help=f"of pictures; {trial}")
    parser.add_argument("--bundles", nargs="+", choices=BUNDLES, default=list(BUNDLES), help=trial)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--set", help=argparse.SUPPRESS)
    parser.add_argument("--pictures", nargs="*", help=argparse.SUPPRESS)
    return parser.parse_args()


def picture_sets(assets: Path, n_pictures: int) -> dict[str, list[Path]]:
    """Return bus.jpg for the COCO detector and the first validation pictures for the NWPU detector."""
    import ultralytics

    split = json.loads((Path(__file__).parent.parent / "edgekd/data/splits/nwpu_seed0.json").read_text())
    folder = Path(assets) / "data/nwpu_vhr10/images"
    validation = split.get("validation") or split["val"]
    return {
        "bus": [Path(ultralytics.__file__).parent / "assets/bus.jpg"],
        "nwpu": [folder / name for name in sorted(validation)[:n_pictures]],
    }


def prepare(arguments: argparse.Namespace, work: Path) -> None:
    """Export both model sets, build every bundle, and lay out the checkpoints for Ultralytics."""
    import shutil

    from ultralytics import YOLO

    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.deploy.export import ExportOptions, export_networks
    from edgekd.model_set import Source
    from edgekd.models.tinysam import load_tinysam
    from edgekd.models.weights import resolve
    from edgekd.models.yolo11n import load_detector

    segmenter = resolve(arguments.segmenter)
    shutil.copyfile(segmenter, work / "mobile_sam.pt")
    detectors = {"bus": Path(arguments.assets) / "assets/yolo11n_coco.pt", "nwpu": resolve(arguments.detector)}
    source = Source(name="benchmark", sha256="0", licence="see the weights")
    for key in arguments.sets:
        path = detectors[key]
        shutil.copyfile(path, work / f"{key}.pt")
        YOLO(work / f"{key}.pt").export(format="openvino", imgsz=640, verbose=False)
        models = work / f"{key}_models"
        export_networks(
            load_detector(path), load_tinysam(segmenter), {"detector": source, "segmenter": source}, models,
            ExportOptions(encoder_px=(1024, 1024)),
        )  # fmt: skip
        for arm in arguments.bundles:
            _, precision, size, *square = arm.split("-")
            options = BuildOptions(precision=precision, encoder_px=(int(size), int(size)), square=bool(square))
            build_bundle(models, work / f"{key}_{arm}", options, print)


def check_parity(work: Path, key: str, paths: list[Path], bundles: list[str]) -> dict[str, object]:
    """Compare every bundle's masks with PyTorch fp32 on the same boxes, and its boxes with Ultralytics'.

    Raises:
        SystemExit: the mean mask IoU is under `MIN_MASK_IOU`; nothing is timed then.
    """
    import edgekd
    from edgekd.models.tinysam import load_tinysam

    torch_model = load_tinysam(work / "mobile_sam.pt")
    boxes = {path: ultralytics_boxes(work, key, path) for path in paths}
    report: dict[str, object] = {}
    for arm in bundles:
        ious, square_ious, box_ious = [], [], []
        with edgekd.load(str(work / f"{key}_{arm}")) as chain:
            for path in paths:
                picture = edgekd.read_picture(path)
                result = chain(picture, boxes=boxes[path])
                spec = chain.manifest.pipeline.encoder_input
                ious += mask_ious(spec, torch_model, picture, boxes[path], result)
                square = spec.model_copy(update={"smaller_sizes_px": ()})
                square_ious += mask_ious(square, torch_model, picture, boxes[path], result)
                found = chain.detect(picture)
                box_ious += best_ious(boxes[path], found.xyxy)
        mean = float(np.mean(ious))
        limit = MIN_MASK_IOU[arm.split("-")[1]]
        report[arm] = {
            "n_masks": len(ious),
            "mean_mask_iou": mean,
            "masks_under_0.9": sorted(round(iou, 4) for iou in ious if iou < LISTED_BELOW),
            "mean_mask_iou_with_square_input": float(np.mean(square_ious)),
            "masks_under_0.9_with_square_input": sorted(round(iou, 4) for iou in square_ious if iou < LISTED_BELOW),
            "mean_box_iou_with_ultralytics": float(np.mean(box_ious)),
        }
        print(key, arm, report[arm])
        if mean < limit:
            sys.exit(f"{arm}: mean mask IoU {mean:.4f} on {key}, expected at least {limit}; no time is reported")
    return report


def ultralytics_boxes(work: Path, key: str, path: Path) -> np.ndarray:
    """Return Ultralytics' own boxes of a picture: (n, 4) float32."""
    from ultralytics import YOLO

    return YOLO(work / f"{key}.pt").predict(path, verbose=False)[0].boxes.xyxy.numpy().astype(np.float32)


def mask_ious(spec, model, picture, boxes, result) -> list[float]:  # type: ignore[no-untyped-def]
    """IoU of each mask with PyTorch's fp32 mask of the same box, of an input that `spec` describes."""
    import torch

    from edgekd.models.tinysam import PromptDecoder
    from edgekd.runtime.preprocess import preprocess
    from edgekd.runtime.segment import MaskOptions, masks_from_logits

    blob, placement = preprocess(picture, spec)
    with torch.no_grad():
        embeddings = model.image_encoder(torch.from_numpy(blob))
        prompts = torch.from_numpy(placement.to_input(boxes))
        low_res, iou = PromptDecoder(model)(embeddings, prompts)
    reference = masks_from_logits(low_res.numpy(), iou.numpy(), placement, MaskOptions())
    values = []
    for index in range(len(boxes)):
        a, b = result.masks.full(index), reference.full(index)
        union = int((a | b).sum())
        values.append(float((a & b).sum() / union) if union else 1.0)
    return values


def best_ious(expected: np.ndarray, found: np.ndarray) -> list[float]:
    """For each expected box the IoU of the best found one."""
    values = []
    for box in expected:
        low = np.maximum(found[:, :2], box[:2])
        high = np.minimum(found[:, 2:], box[2:])
        overlap = np.clip(high - low, 0, None).prod(1)
        areas = (found[:, 2:] - found[:, :2]).prod(1) + (box[2:] - box[:2]).prod()
        values.append(float((overlap / (areas - overlap)).max(initial=0.0)))
    return values


def measure(work: Path, key: str, paths: list[Path], arguments: argparse.Namespace) -> dict[str, object]:
    """Run the arms in turns, each in its own process, and keep the fastest time of every picture."""
    chains = [*arguments.bundles, PEER]
    alone = [arm for arm in DETECTOR_BUNDLES if arm in arguments.bundles]
    detectors = [f"detector:{arm}" for arm in (*alone, DETECTOR_PEER)]
    best: dict[str, np.ndarray] = {}
    n_boxes: dict[str, list[int]] = {}
    for _ in range(arguments.rounds):
        for arm in [*chains, *detectors]:
            command = [
                sys.executable,
                __file__,
                "--arm",
                arm,
                "--work",
                str(work),
                "--set",
                key,
                "--threads",
                str(arguments.threads),
            ]
            done = subprocess.run(
                [*command, "--pictures", *map(str, paths)], capture_output=True, text=True, check=True,
                env=os.environ | {"OMP_NUM_THREADS": str(arguments.threads)},
            )  # fmt: skip
            answer = json.loads(done.stdout.strip().splitlines()[-1])
            times = np.array(answer["times_ms"])
            best[arm] = np.minimum(best.get(arm, times), times)
            n_boxes[arm] = answer["n_boxes"]
    total_ms = {arm: float(times.mean()) for arm, times in best.items()}
    peer, detector_peer = total_ms[PEER], total_ms[f"detector:{DETECTOR_PEER}"]
    ratios = {arm: peer / total_ms[arm] for arm in chains} | {arm: detector_peer / total_ms[arm] for arm in detectors}
    return {"ms_per_picture": total_ms, "n_boxes": n_boxes, "ratios": ratios, "n_pictures": len(paths)}


def run_arm(arguments: argparse.Namespace) -> dict[str, object]:
    """Time one arm on all pictures: the fastest run of each, in milliseconds, and its number of boxes."""
    import cv2

    pictures = [cv2.imread(path) for path in arguments.pictures]
    arm = arguments.arm.removeprefix("detector:")
    call = (edgekd_call if arm.startswith("edgekd") else ultralytics_call)(arguments, arm)
    times_ms, n_boxes = [], []
    for picture in pictures:
        call(picture)
        runs: list[float] = []
        while len(runs) < MIN_RUNS or sum(runs) < MIN_SECONDS * 1e3:
            start = time.perf_counter()
            n = call(picture)
            runs.append((time.perf_counter() - start) * 1e3)
        times_ms.append(min(runs))
        n_boxes.append(n)
    return {"times_ms": times_ms, "n_boxes": n_boxes}


def edgekd_call(arguments: argparse.Namespace, arm: str):  # type: ignore[no-untyped-def]
    import cv2

    import edgekd

    cv2.setNumThreads(arguments.threads)
    chain = edgekd.load(str(arguments.work / f"{arguments.set}_{arm}"), arguments.threads)
    if arguments.arm.startswith("detector:"):
        return lambda picture: len(chain.detect(picture))
    return lambda picture: len(chain(picture).masks)


def ultralytics_call(arguments: argparse.Namespace, arm: str):  # type: ignore[no-untyped-def]
    import torch
    from ultralytics import SAM, YOLO

    torch.set_num_threads(arguments.threads)
    if arm == "ultralytics-openvino":
        exported = YOLO(arguments.work / f"{arguments.set}_openvino_model", task="detect")
        return lambda picture: len(exported.predict(picture, verbose=False)[0].boxes)
    detector = YOLO(arguments.work / f"{arguments.set}.pt")
    segmenter = SAM(arguments.work / "mobile_sam.pt")

    def call(picture: np.ndarray) -> int:
        boxes = detector.predict(picture, verbose=False)[0].boxes.xyxy
        if not len(boxes):
            return 0
        return len(segmenter.predict(picture, bboxes=boxes, conf=0.0, verbose=False)[0].masks.data)

    return call


if __name__ == "__main__":
    main()
