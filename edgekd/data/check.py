"""Checks of a data set in Ultralytics' YAML form before anything is trained on it, and the report of what it holds.

The YAML goes in; counts come out, or an error that names the file and the line. Ultralytics itself drops a picture with
a broken label in silence, and trains on what is left.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgekd.errors import DataError

PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"}
LABEL_TOLERANCE = 1e-4  # labels are written with six digits; rounding may carry a box this far over the edge


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        name: `train` or `val`.
        n_pictures: pictures found.
        n_background: pictures without an object.
        n_objects: objects by class name.
        median_side_fraction: median of sqrt(width x height) of the objects, as a fraction of the picture.
    """

    name: str
    n_pictures: int
    n_background: int
    n_objects: dict[str, int]
    median_side_fraction: float


def check_dataset(path: Path) -> list[SplitReport]:
    """Check a data set: both splits, every label file, every line.

    Args:
        path: the YAML with `path`, `train`, `val` and `names`.

    Returns:
        A report of `train` and of `val`.

    Raises:
        DataError: a missing file or key, an empty split, or a label that is not `class x y w h` (or `class` and an
            outline of x y pairs) with a known class and fractions in 0..1.
    """
    content = _read_yaml(path)
    names = content["names"]
    ordered = list(names.values()) if isinstance(names, dict) else list(names)
    root = Path(content.get("path") or path.parent)
    root = root if root.is_absolute() else path.parent / root
    return [_check_split(path, split, root / str(content[split]), ordered) for split in ("train", "val")]


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a data set in Ultralytics' YAML, or make one with: edgekd data")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no YAML file: {str(error).splitlines()[0]}") from error
    missing = [key for key in ("train", "val", "names") if not isinstance(content, dict) or key not in content]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)}; a data set needs train, val and names")
    return dict(content)


def _check_split(yaml_path: Path, split: str, folder: Path, names: list[str]) -> SplitReport:
    pictures = list_pictures(folder)
    if not pictures:
        raise DataError(f"the split {split} of {yaml_path} holds no picture in {folder}; check `path` and `{split}`")
    counts: Counter[str] = Counter()
    sides: list[float] = []
    n_background = 0
    for picture in pictures:
        label = label_of(picture)
        rows = read_labels(label, len(names)) if label.is_file() else []
        n_background += not rows
        counts.update(names[class_id] for class_id, _ in rows)
        sides.extend(side_fraction(values) for _, values in rows)
    if not counts:
        raise DataError(f"the split {split} of {yaml_path} holds no object; put labels beside the pictures in labels/")
    sides.sort()
    return SplitReport(split, len(pictures), n_background, dict(counts.most_common()), sides[len(sides) // 2])


def list_pictures(source: Path) -> list[Path]:
    """Pictures of a folder (searched to the bottom) or of a text file with one path a line, sorted."""
    if source.is_file() and source.suffix == ".txt":
        lines = [line.strip() for line in source.read_text().splitlines() if line.strip()]
        found = [Path(line) if Path(line).is_absolute() else source.parent / line for line in lines]
        return sorted(found)
    return sorted(p for p in source.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES) if source.is_dir() else []


def label_of(picture: Path) -> Path:
    """Where Ultralytics looks for the labels: the last `images` folder of the path becomes `labels`."""
    parts = list(picture.parts)
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(path: Path, n_classes: int) -> list[tuple[int, list[float]]]:
    """Rows of a label file as (class id, numbers): x y w h, or the x y pairs of an outline.

    Raises:
        DataError: a row of another form, an unknown class, or a number outside 0..1.
    """
    rows = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        fields = line.split()
        if not fields:
            continue
        where = f"{path}, line {number}"
        try:
            class_id, values = int(float(fields[0])), [float(field) for field in fields[1:]]
        except ValueError as error:
            raise DataError(f"{where}: {line[:60]!r} is no label, expected numbers: class x y w h") from error
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise DataError(f"{where}: {len(fields)} numbers, expected 5 (class x y w h) or a class and an outline")
        if not 0 <= class_id < n_classes or class_id != float(fields[0]):
            raise DataError(f"{where}: class {fields[0]}, expected 0 to {n_classes - 1}; check `names` of the data set")
        if not all(-LABEL_TOLERANCE <= value <= 1.0 + LABEL_TOLERANCE for value in values):
            raise DataError(f"{where}: {line[:60]!r} leaves the picture, expected fractions in 0..1")
        rows.append((class_id, values))
    return rows


def side_fraction(values: list[float]) -> float:
    """sqrt(width x height) of a label, as a fraction of the picture."""
    if len(values) == 4:
        return float((values[2] * values[3]) ** 0.5)
    xs, ys = values[0::2], values[1::2]
    return float(((max(xs) - min(xs)) * (max(ys) - min(ys))) ** 0.5)
