"""Published data sets as they come: NWPU VHR-10, DIOR and DOTA in, one `LabelledSet` per split out.

What a file says wrongly is an error that names the file and the entry.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from importlib import resources
from pathlib import Path

from edgekd.data.coco import read_coco
from edgekd.data.dota import DOTA_CLASSES, tile_dota
from edgekd.data.inside import picture_inside
from edgekd.data.labels import LabelledSet
from edgekd.data.voc import read_voc_file
from edgekd.data.write import DataReport, finish_dataset, new_dataset
from edgekd.errors import DataError

DIOR_CLASSES = (
    "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam", "Expressway-Service-area",
    "Expressway-toll-station", "golffield", "groundtrackfield", "harbor", "overpass", "ship", "stadium", "storagetank",
    "tenniscourt", "trainstation", "vehicle", "windmill",
)  # fmt: skip
NWPU_SPLIT = "nwpu_seed0.json"


def split_pictures(labels: LabelledSet, fraction: float, seed: int) -> dict[str, LabelledSet]:
    """Split by picture: file names sorted, shuffled by `random.Random(seed)`, the first `fraction` is `val`."""
    ordered = sorted(labels.pictures, key=lambda picture: picture.path.name)
    random.Random(seed).shuffle(ordered)
    n_val = round(len(ordered) * fraction)
    parts = {"train": ordered[n_val:], "val": ordered[:n_val]}
    return {split: replace(labels, pictures=tuple(part), split=split) for split, part in parts.items()}


def read_nwpu(source: Path) -> dict[str, LabelledSet]:
    """Read NWPU VHR-10 in COCO form (`annotations.json`, `images/`) with the project's recorded split.

    Raises:
        DataError: see `read_coco`, or a picture of the recorded split is not there.
    """
    labels = read_coco(source / "annotations.json")
    known = {picture.path.name for picture in labels.pictures}
    recorded = json.loads(resources.files("edgekd.data").joinpath("splits", NWPU_SPLIT).read_text())
    parts = {"train": recorded["train"], "val": recorded["validation"]}
    missing = [name for names in parts.values() for name in names if name not in known]
    if missing:
        raise DataError(f"{source} lacks {len(missing)} pictures of the recorded split, the first is {missing[0]}")
    return {split: replace(labels.only(names), split=split) for split, names in parts.items()}


def read_dior(source: Path) -> dict[str, LabelledSet]:
    """Read DIOR with horizontal boxes, as published: trainval for training, test for validation.

    Expected are `Annotations/*.xml` (or `Annotations/Horizontal Bounding Boxes/*.xml`), `JPEGImages-trainval/` and
    `JPEGImages-test/`; a picture belongs to the split in whose folder it lies.

    Raises:
        DataError: a folder is missing, or an XML file is damaged or names an unknown class.
    """
    nested = source / "Annotations" / "Horizontal Bounding Boxes"
    labels = nested if nested.is_dir() else source / "Annotations"
    folders = {"train": source / "JPEGImages-trainval", "val": source / "JPEGImages-test"}
    for folder in (labels, *folders.values()):
        if not folder.is_dir():
            raise DataError(f"{folder} does not exist; give the folder of DIOR as it is published")
    splits = {}
    for split, folder in folders.items():
        files = sorted(folder.glob("*.jpg"))
        pictures = tuple(
            read_voc_file(labels / f"{file.stem}.xml", picture_inside(folder, file.name, str(source)), DIOR_CLASSES)
            for file in files
        )
        splits[split] = LabelledSet(source, DIOR_CLASSES, pictures, split)
    return splits


def convert_dota(
    source: Path, output: Path, limit: int | None, tile_px: int = 1024, overlap_px: int = 200
) -> DataReport:
    """Tile DOTA v1.0 with its oriented boxes into an Ultralytics OBB data set; see `tile_dota`."""
    report = DataReport()
    with new_dataset(output) as folder:
        tile_dota(source, folder, limit, tile_px, overlap_px)
        finish_dataset(folder, output, DOTA_CLASSES, report)
    return report
