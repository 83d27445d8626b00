"""The two small data sets of `bench_distill.py`: one to choose a recipe on, one to report it on.

    python benchmarks/distill_sets.py --data nwpu/data.yaml --side 320 -o small

Pictures are shrunk once, so that a run on a processor spends its seconds on networks and not on decoding. `report.yaml`
has the splits of the data set. `choose.yaml` has its training pictures alone, every fifth of them for validation, so
that a choice never sees a picture that the report is measured on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import yaml

EVERY = 5
"""One training picture in so many validates a choice."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="data set in Ultralytics' YAML, with labels beside it")
    parser.add_argument("--side", type=int, default=320, help="longer side of the pictures, pixels")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    shrink(options.data, options.side, options.output)


def shrink(data: Path, side_px: int, output: Path) -> None:
    """Write the shrunk pictures, copies of their labels, and both YAML files."""
    description = yaml.safe_load(data.read_text())
    root = Path(description["path"])
    files = {split: sorted((root / description[split]).iterdir()) for split in ("train", "val")}
    places = {split: [copy(file, side_px, output / "images" / split) for file in files[split]] for split in files}
    held_out = places["train"][::EVERY]
    lists = {
        "choose_train": [place for place in places["train"] if place not in held_out],
        "choose_val": held_out,
        "report_train": places["train"],
        "report_val": places["val"],
    }
    for name, pictures in lists.items():
        (output / f"{name}.txt").write_text("".join(f"{picture.absolute()}\n" for picture in pictures))
    for name in ("choose", "report"):
        content = {"path": str(output.absolute()), "train": f"{name}_train.txt", "val": f"{name}_val.txt"}
        (output / f"{name}.yaml").write_text(yaml.safe_dump(content | {"names": description["names"]}, sort_keys=False))


def copy(file: Path, side_px: int, folder: Path) -> Path:
    """One picture, its longer side `side_px` at most, as PNG; its labels are fractions and stay as they are."""
    labels = folder.parent.parent / "labels" / folder.name
    for place in (folder, labels):
        place.mkdir(parents=True, exist_ok=True)
    picture = cv2.imread(str(file))
    scale = min(side_px / max(picture.shape[:2]), 1.0)
    size = round(picture.shape[1] * scale), round(picture.shape[0] * scale)
    target = folder / f"{file.stem}.png"
    cv2.imwrite(str(target), cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    source = Path(str(file.parent).replace("/images", "/labels")) / f"{file.stem}.txt"
    (labels / source.name).write_bytes(source.read_bytes() if source.exists() else b"")
    return target


if __name__ == "__main__":
    main()
