"""Large pictures in tiles: is anything lost, does memory stay, how fast is it; SAHI runs the same tiles beside it.

    python benchmarks/bench_mosaic.py --assets DIR

A mosaic of 12,000 px is laid out of the validation pictures of NWPU VHR-10, the rest of it grey, and written as a
GeoTIFF. The chain runs the pictures one by one, the mosaic in tiles, and the mosaic shrunk to the detector's input;
average precision is taken picture by picture in all of them. Every picture is first resized to the tile on its longer
side, so that the detector sees an object at one scale in both; rows "own size" are the pictures as they come, where the
scale of a picture alone is its own and that in tiles is not. Each arm of memory and speed has its own process; the arms
of speed run in turns, and `same_boxes` compares first what they find. With `--work` an interrupted run goes on where it
stopped. Needs `pip install sahi rasterio`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tile_rivals
from mosaics import Place, apart, coco_results, lay_out, one_scale, validation_set, write_mosaic
from result_file import result_path, write_result

from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.measure import coco_metrics as coco
from edgekd.measure.accuracy import map_classes
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.journal import Journal
from edgekd.runtime.mosaic import MosaicOptions, collect, journal_key, run_mosaic
from edgekd.runtime.sources import read_picture
from edgekd.runtime.tiles import TileGrid, TileOptions, choose_grid
from edgekd.runtime.windows import open_windows
from edgekd.types import ChainResult, Detections, Masks

SIDE_PX, SMALL_PX = 12_000, 4_000
TILE_PX, OBJECT_PX = 960, 400
"""The detector was trained on pictures of about 950 px, and the largest object of the set has 404."""
AP_CONFIDENCE, MASK_CONFIDENCE, SHOWN = 0.001, 0.05, 0.25
ROUNDS = 2
MAX_AP_LOSS, MAX_MEMORY_RATIO, MIN_SPEED_RATIO = 0.01, 1.2, 2.0
UNTOLD = "in tiles chosen without --tile and --object-px"
PARTS = ("accuracy", "memory", "same_boxes", "speed")


def main() -> None:
    """Build, measure, write; or run one arm."""
    arguments = parse()
    if arguments.arm:
        print(json.dumps(ARMS[arguments.arm.split(":")[0]](arguments)))
        return
    path = result_path("mosaic", arguments.output)
    report: dict[str, Any] = json.loads(path.read_text()) if arguments.part and path.is_file() else {}
    report["settings"] = settings(arguments)
    with tempfile.TemporaryDirectory() as name:
        work = arguments.work or Path(name)
        bundle = build_bundles(work)
        labels = validation_set(arguments.assets)
        scaled = one_scale(labels, TILE_PX, work / "pictures")
        for size, side_px in (("large", SIDE_PX), ("small", SMALL_PX)):
            if not (work / f"{size}.tif").is_file():
                write_mosaic(work / f"{size}.tif", *lay_out(scaled, side_px), side_px)
        parts = {
            "accuracy": lambda: accuracy(bundle, work / "large.tif", scaled) | own_size(bundle, work, labels),
            "memory": lambda: memory(work, bundle),
            "same_boxes": lambda: same_boxes(work, arguments.threads),
            "speed": lambda: speed(work, arguments.threads),
        }
        for part in arguments.part or parts:
            load = os.getloadavg()[0]
            report[part] = parts[part]()
            report.setdefault("load_average_before", {})[part] = load
            print(json.dumps({part: report[part]}, indent=1), flush=True)
            report["holds"] = verdict(report)
            write_result("mosaic", report, arguments.output)
    print(path, json.dumps(report["holds"]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, default=os.environ.get("EDGEKD_ASSETS"), help="folder with data/")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--part", action="append", choices=PARTS, help="measure this again; default: everything")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="keep bundles and mosaics here, and take those that are there")
    return parser.parse_args()


def settings(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "side_px": SIDE_PX, "tile_px": TILE_PX, "object_px": OBJECT_PX, "ap_confidence": AP_CONFIDENCE,
        "mask_confidence": MASK_CONFIDENCE, "shown_confidence": SHOWN, "memory_side_px": SMALL_PX,
        "speed_tile_px": tile_rivals.TILE_PX, "speed_overlap_px": tile_rivals.OVERLAP_PX, "rounds": ROUNDS,
        "threads": arguments.threads, "statistic": "fastest of the rounds", 
        "pictures": "longer side resized to the tile", "models": "shipped detector and crop segmenter, fp32",
    }  # fmt: skip


def build_bundles(work: Path) -> Path:
    """Build the shipped detector with the shipped crop segmenter."""
    from edgekd.deploy.build import BuildOptions, build_bundle
    from edgekd.models.crop_set import copy_shipped_crop
    from edgekd.package_files import default_models

    if not (work / "models").is_dir():
        copy_shipped_crop(work / "models", default_models())
    for precision in ("fp32", "auto"):
        if (work / f"edgekd-{precision}").is_dir():
            continue
        build_bundle(work / "models", work / f"edgekd-{precision}", BuildOptions(precision=precision), print)
    return work / "edgekd-fp32"


def own_size(bundle: Path, work: Path, labels: LabelledSet) -> dict[str, Any]:
    """AP of boxes where every picture has the size it came with."""
    pictures, places = lay_out(labels, SIDE_PX)
    if not (work / "own.tif").is_file():
        write_mosaic(work / "own.tif", pictures, places, SIDE_PX)
    with Chain.open(bundle) as chain:
        truth = coco.coco_labels(pictures, map_classes(labels, chain.manifest.pipeline.class_names))
        windows = open_windows(work / "own.tif")
        wanted = MosaicOptions(chain_options(AP_CONFIDENCE), TileOptions(TILE_PX, OBJECT_PX), masks=False)
        arms = {
            "own size, one by one": one_by_one(chain, pictures, wanted.chain, False, work),
            "own size, in tiles": apart(tiled(chain, windows, wanted, work / "own.tif"), pictures, places),
        }
        windows.close()
    return {
        arm: {"box": coco.average_precision(truth, coco_results(parts, False), "bbox")} for arm, parts in arms.items()
    }


def accuracy(bundle: Path, path: Path, labels: LabelledSet) -> dict[str, Any]:
    """AP of the three ways, and what became of objects at seams."""
    pictures, places = lay_out(labels, SIDE_PX)
    with Chain.open(bundle) as chain:
        class_of = map_classes(labels, chain.manifest.pipeline.class_names)
        truth = coco.coco_labels(pictures, class_of)
        windows = open_windows(path)
        tiles = TileOptions(TILE_PX, OBJECT_PX)
        report: dict[str, Any] = {
            "n_pictures": len(pictures),
            "n_objects": sum(len(picture) for picture in pictures),
            "n_tiles": len(choose_grid(windows.size_px, chain.manifest.pipeline, tiles)),
        }
        arms = {
            "one by one": lambda options, masks: one_by_one(chain, pictures, options, masks, path.parent),
            "in tiles": lambda options, masks: apart(
                tiled(chain, windows, MosaicOptions(options, tiles, masks), path), pictures, places
            ),
            UNTOLD: lambda options, masks: apart(
                tiled(chain, windows, MosaicOptions(options, TileOptions(), masks), path), pictures, places
            ),
            "shrunk": lambda options, masks: apart(
                shrunk(chain, windows.read((0, 0, SIDE_PX, SIDE_PX)), options, masks), pictures, places
            ),
        }
        for arm, run in arms.items():
            boxes = run(chain_options(AP_CONFIDENCE), False)
            report[arm] = {"box": coco.average_precision(truth, coco_results(boxes, False), "bbox")}
            if arm != UNTOLD:
                masks = run(chain_options(MASK_CONFIDENCE), True)
                report[arm]["mask"] = coco.average_precision(truth, coco_results(masks, True), "segm")
            print(arm, json.dumps(report[arm]), flush=True)
        report["seams"] = seams(chain, path, pictures, places, class_of)
        windows.close()
    return report


def chain_options(confidence: float) -> ChainOptions:
    return ChainOptions(detect=DetectOptions(confidence, multi_label=True))


def one_by_one(
    chain: Chain, pictures: list[LabelledPicture], options: ChainOptions, masks: bool, work: Path
) -> list[tuple[Detections, Masks | None]]:
    """Results of each picture alone, kept in a journal as those of tiles are."""
    results = []
    with kept(chain, work / "one by one", MosaicOptions(options, masks=masks), pictures[0].path) as journal:
        for index, picture in enumerate(pictures):
            if index not in journal:
                pixels = read_picture(picture.path)
                result = chain(pixels, options) if masks else None
                found = (result.detections, result.masks) if result else (chain.detect(pixels, options.detect), None)
                journal.add(index, *found)
            results.append(journal.get(index))
    return results


def tiled(chain: Chain, windows: Any, options: MosaicOptions, path: Path) -> ChainResult:
    """The objects of a mosaic; finished tiles are kept beside it."""
    with kept(chain, path, options, path) as journal:
        return collect(run_mosaic(chain, windows, options, journal), windows.size_px)


def kept(chain: Chain, name: Path, options: MosaicOptions, source: Path) -> Journal:
    key = journal_key(chain, source, options)
    return Journal(name.with_name(f"{name.stem}.{key[:12]}.jsonl"), key)


def shrunk(chain: Chain, picture: np.ndarray, options: ChainOptions, masks: bool) -> ChainResult:
    if masks:
        return chain(picture, options)
    found = chain.detect(picture, options.detect)
    empty = Masks(picture.shape[:2], np.zeros((len(found), 4), np.int32), [np.zeros((0, 0), bool)] * len(found),
                  np.zeros(len(found), np.float32))  # fmt: skip
    return ChainResult(found, empty, chain.manifest.pipeline.class_names)


def seams(
    chain: Chain, path: Path, pictures: list[LabelledPicture], places: list[Place], class_of: np.ndarray
) -> dict[str, int]:
    """Count objects that leave twice, and those that a tile sees whole and finds and that do not leave."""
    options = MosaicOptions(ChainOptions(detect=DetectOptions(SHOWN)), TileOptions(TILE_PX, OBJECT_PX), masks=False)
    windows = open_windows(path)
    grid = choose_grid(windows.size_px, chain.manifest.pipeline, options.tiles)
    result = tiled(chain, windows, options, path)
    with kept(chain, path, options, path) as journal:
        truth = np.concatenate([p.xyxy + np.array(place * 2) for p, place in zip(pictures, places, strict=True)])
        classes = np.concatenate([class_of[p.class_id] for p in pictures])
        in_tiles = found_whole(grid, journal, truth.astype(np.float32), classes)
    windows.close()
    found = result.detections
    at_the_end = matches(truth.astype(np.float32), classes, found)
    ious = coco.box_ious(found.xyxy, found.xyxy)
    ious[found.class_id[:, None] != found.class_id[None]] = 0
    alone = [chain.detect(read_picture(p.path), options.chain.detect) for p in {p.path: p for p in pictures}.values()]
    return {
        "n_found": len(found),
        "n_twice": int((np.triu(ious, 1) > options.chain.detect.iou).sum()),
        "n_pairs_over_half": int((np.triu(ious, 1) > 0.5).sum()),
        "n_pairs_over_half_one_by_one": sum(pairs_over_half(each) for each in alone),
        "n_seen_whole_and_found_in_a_tile": int(in_tiles.sum()),
        "n_of_these_lost": int((in_tiles & ~at_the_end).sum()),
    }


def pairs_over_half(found: Detections) -> int:
    ious = coco.box_ious(found.xyxy, found.xyxy)
    ious[found.class_id[:, None] != found.class_id[None]] = 0
    return int((np.triu(ious, 1) > 0.5).sum())


def matches(truth: np.ndarray, classes: np.ndarray, found: Detections) -> np.ndarray:
    """Which labels have a box of their class with an IoU of at least 0.5: (n,) bool."""
    if not len(found):
        return np.zeros(len(truth), bool)
    ious = coco.box_ious(truth, found.xyxy)
    ious[classes[:, None] != found.class_id[None]] = 0
    return np.asarray(ious.max(1) >= 0.5)


def found_whole(grid: TileGrid, journal: Journal, truth: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Which labels lie whole in a tile that finds them."""
    found = np.zeros(len(truth), bool)
    for index, (left, top, right, bottom) in enumerate(grid):
        whole = (truth[:, :2] >= [left, top]).all(1) & (truth[:, 2:] <= [right, bottom]).all(1)
        boxes, _ = journal.get(index)
        moved = replace(boxes, xyxy=(boxes.xyxy + np.array([left, top] * 2)).astype(np.float32))
        found |= whole & matches(truth, classes, moved)
    return found


def memory(work: Path, bundle: Path) -> dict[str, Any]:
    """Peak resident set of a whole run, masks and files included, at both sizes; boxes alone beside it."""
    peaks = {name: own_process(work, f"memory:{bundle}:{name}")["peak_mib"] for name in ("small", "large")}
    return {"peak_mib": peaks, "ratio": peaks["large"] / peaks["small"]}


def memory_arm(arguments: argparse.Namespace) -> dict[str, float]:
    from edgekd.runtime.mosaic_files import preview, write_label_raster

    _, bundle, name = arguments.arm.split(":")
    options = MosaicOptions(ChainOptions(detect=DetectOptions(SHOWN)), TileOptions(TILE_PX, OBJECT_PX))
    windows = open_windows(arguments.work / f"{name}.tif")
    with Chain.open(bundle) as chain, Journal(arguments.work / f"{name}.memory.jsonl", name) as journal:
        result = collect(run_mosaic(chain, windows, options, journal), windows.size_px)
        journal.discard()
    write_label_raster(arguments.work / f"{name}_masks.tif", result, windows.georeference)
    preview(windows, result)
    return {"peak_mib": peak_mib(), "n_objects": len(result)}


def peak_mib() -> float:
    """Peak resident set of this program alone; getrusage also counts the parent before the fork."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def same_boxes(work: Path, threads: int) -> dict[str, Any]:
    """The tiles of both programs, and how far their boxes agree, before a time is taken."""
    tile_rivals.build_for_sahi(work)
    found = {arm: own_process(work, f"boxes:{arm}", threads) for arm in tile_rivals.ARMS}
    ours, *others = found
    return {
        "n_tiles": len(tile_rivals.tile_corners("edgekd")),
        "same tiles": tile_rivals.tile_corners("edgekd") == tile_rivals.tile_corners("sahi"),
        "n_boxes": {arm: {stage: len(boxes) for stage, boxes in each.items()} for arm, each in found.items()},
        **{f"{ours} and {arm}": tile_rivals.compare(found[ours], found[arm]) for arm in others},
    }


def speed(work: Path, threads: int) -> dict[str, Any]:
    """Seconds for the boxes of the smaller mosaic, each arm in its own process, in turns, one detector for all."""
    tile_rivals.build_for_sahi(work)
    arms = tile_rivals.ARMS
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(ROUNDS):
        for arm in arms:
            seconds[arm].append(own_process(work, f"speed:{arm}", threads)["seconds"])
    best = {arm: min(values) for arm, values in seconds.items()}
    ratios = {f"{peer} over {own}": best[peer] / best[own] for own in arms[:2] for peer in arms[2:]}
    return {"side_px": SMALL_PX, "seconds": best, "all_seconds": seconds, "ratios": ratios}


def own_process(work: Path, arm: str, threads: int | None = None) -> dict[str, Any]:
    command = [sys.executable, __file__, "--arm", arm, "--work", str(work)]
    command += ["--threads", str(threads)] if threads else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{arm}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def verdict(report: dict[str, Any]) -> dict[str, bool]:
    """What the design asks for, and whether it holds, of the parts that were measured."""
    holds = {}
    if "accuracy" in report:
        whole, parts = report["accuracy"]["one by one"], report["accuracy"]["in tiles"]
        counts = report["accuracy"]["seams"]
        holds |= {
            "box AP within 1 point": whole["box"]["ap"] - parts["box"]["ap"] <= MAX_AP_LOSS,
            "mask AP within 1 point": whole["mask"]["ap"] - parts["mask"]["ap"] <= MAX_AP_LOSS,
            "no object twice": counts["n_twice"] == 0,
            "none lost": counts["n_of_these_lost"] == 0,
        }
    if "memory" in report:
        holds["memory at most 1.2 times"] = report["memory"]["ratio"] <= MAX_MEMORY_RATIO
    if "speed" in report:
        ratio = report["speed"]["ratios"]["sahi-pytorch over edgekd-fp32"]
        holds["twice as fast as SAHI with PyTorch"] = ratio >= MIN_SPEED_RATIO
        ratio = report["speed"]["ratios"]["sahi-openvino over edgekd-fp32"]
        holds["twice as fast as SAHI with OpenVINO"] = ratio >= MIN_SPEED_RATIO
    return holds


def boxes_arm(arguments: argparse.Namespace) -> dict[str, Any]:
    return tile_rivals.boxes_of_arm(arguments.work, arguments.arm.split(":")[1], arguments.threads)


def speed_arm(arguments: argparse.Namespace) -> dict[str, float]:
    return tile_rivals.time_arm(arguments.work, arguments.arm.split(":")[1], arguments.threads)


ARMS = {"memory": memory_arm, "boxes": boxes_arm, "speed": speed_arm}

if __name__ == "__main__":
    main()
