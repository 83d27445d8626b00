"""YOLO's labels: one text file per picture, boxes, outlines or turned boxes as fractions, in; a `LabelledSet` out.

A turned box is an outline of four corners, and nothing in the file says which of the two it is: the task knows.

A data set is an Ultralytics YAML (`path`, `train`, `val`, `names`) or a folder with `images/` and `labels/`. The YAML
is data here: what it holds besides (`download`) is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.inside import TOLERANCE, checked_names, picture_inside, printable, read_text
from edgekd.data.labels import LabelledPicture, LabelledSet, Segmentation
from edgekd.errors import DataError, InputError, first_line
from edgekd.runtime.picture_size import picture_size
from edgekd.runtime.sources import PICTURE_SUFFIXES

KIND = "an Ultralytics data file (.yaml) with path, train, val and names"


def read_yolo(path: Path, split: str = "val", limit: int | None = None) -> LabelledSet:
    """Read one part of a data YAML, or a folder with `images/` and `labels/`.

    Args:
        path: the YAML file or the folder; a folder may hold `classes.txt`, one name per line, else classes are named by
            their numbers.
        split: which part of a YAML.
        limit: take only the first so many pictures.

    Raises:
        DataError: the YAML or the part is missing or damaged, a label line is wrong (file and line are named), a
            picture is unreadable, or a path leads out of the data set's folder.
    """
    if path.is_dir():
        return _read_folder(path, limit)
    content = read_yaml(path)
    names = class_names_of(content, path)
    files: list[tuple[Path, Path]] = []
    for part in _parts(content, split, path):
        files += _pictures_of(path, content, part)
    if not files:
        raise DataError(f"the split {split} of {path} holds no picture; check `path` and `{split}`")
    pictures = tuple(_picture(root, file, names) for root, file in files[:limit])
    return LabelledSet(path, names, pictures, split)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping of plain values.

    Raises:
        DataError: PyYAML is not installed, the file is missing or is not a YAML of this form.
    """
    try:
        import yaml
    except ImportError as error:
        raise DataError(f"{path} needs PyYAML; install it with: pip install pyyaml, or give COCO labels") from error
    text = read_text(path, KIND)
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = first_line(error)
        raise DataError(f"{path} is not a YAML file ({reason}), expected {KIND}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, expected {KIND}")
    return content


def class_names_of(content: dict[str, Any], path: Path) -> tuple[str, ...]:
    """Return the names of a data YAML in the order of their numbers.

    Raises:
        DataError: there are none, or their numbers leave gaps.
    """
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        return checked_names((names[index] for index in range(len(names))), path)
    if isinstance(names, list):
        return checked_names(names, path)
    found = "has no names" if names is None else f"has the names {printable(str(names))[:60]}"
    raise DataError(f"{path} {found}, expected a list of class names or numbers from 0 with names")


def label_of(picture: Path) -> Path:
    """Return where Ultralytics looks for labels: the last folder `images` becomes `labels`, the suffix `.txt`."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def read_label_lines(path: Path, n_classes: int | None) -> list[NDArray[np.float64]]:
    """Read the lines of a label file: class id and fractions.

    Args:
        path: the file.
        n_classes: class ids are below this number; None takes any.

    Raises:
        DataError: a line is not `class x y w h`, nor a class and x, y pairs of at least three points, within
            `TOLERANCE` of 0..1. Of four corners, as YOLO-obb has them, only the middle must lie there: DOTA's tiler
            keeps boxes whole that leave a tile, and Ultralytics takes them.
    """
    lines = []
    for number, line in enumerate(read_text(path, "YOLO labels (.txt)").splitlines(), 1):
        if not line.strip():
            continue
        where, shown = f"{path}, line {number}", printable(line)[:60]
        try:
            values = np.array(line.split(), np.float64)
        except ValueError as error:
            raise DataError(f"{where}: {shown!r} is not a label, expected numbers: class x y w h") from error
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            raise DataError(f"{where}: {len(values)} numbers, expected 5 (class x y w h) or a class and an outline")
        limit = 1 << 30 if n_classes is None else n_classes
        if not 0 <= values[0] < limit or values[0] != int(values[0]):
            raise DataError(f"{where}: class {values[0]:g}, expected 0 to {limit - 1}; check `names` of the data set")
        places = values[1:].reshape(4, 2).mean(0) if len(values) == 9 else values[1:]
        # The negated comparison refuses NaN as well.
        if not (places.min() >= -TOLERANCE and places.max() <= 1 + TOLERANCE) or np.abs(values[1:]).max() > 2:
            raise DataError(f"{where}: {shown!r} leaves the picture, expected fractions in 0..1")
        if len(values) == 5 and values[3:].min() < 0:
            raise DataError(f"{where}: {shown!r} has a negative width or height; correct it")
        lines.append(values)
    return lines


def _read_folder(folder: Path, limit: int | None) -> LabelledSet:
    images, labels = folder / "images", folder / "labels"
    if not images.is_dir() or not labels.is_dir():
        raise DataError(f"{folder} does not hold images/ and labels/, expected a folder of YOLO labels or a data file")
    files = [(folder, file) for file in _files_below(images)][:limit]
    if not files:
        raise DataError(f"{images} holds no picture ({', '.join(PICTURE_SUFFIXES)}); give the pictures of the labels")
    listed = folder / "classes.txt"
    if listed.exists():
        names = checked_names(read_text(listed, "one class name per line").split("\n"), listed)
    else:
        highest = max((int(line[0]) for _, file in files for line in _lines_of(folder, file, None)), default=0)
        if highest > 10_000:
            raise DataError(f"{labels} uses the class {highest}; name the classes in {listed}, one a line")
        names = tuple(str(index) for index in range(highest + 1))
    return LabelledSet(folder, names, tuple(_picture(folder, file, names) for _, file in files))


def _parts(content: dict[str, Any], split: str, path: Path) -> list[str]:
    parts = content.get(split)
    found = parts if isinstance(parts, list) else [parts]
    if not found or not all(isinstance(part, str) and part.strip() for part in found):
        known = ", ".join(key for key in ("train", "val", "test") if key in content) or "none"
        raise DataError(f"{path} has no part {split!r}, expected a folder or a list of pictures (it has {known})")
    return [str(part) for part in found]


def root_of(path: Path, content: dict[str, Any]) -> Path:
    """Return the folder that a data YAML speaks of; a relative `path` starts at the file, never elsewhere."""
    root = content.get("path") or "."
    if not isinstance(root, str):
        raise DataError(f"{path} has {printable(str(root))[:60]} as `path`, expected a folder")
    return path.parent / root


def part_folder(path: Path, content: dict[str, Any], part: str) -> tuple[Path, Path]:
    """Return the folder that pictures of a part may lie in, and where the part is: a folder, or a list of pictures.

    A relative part lies below `path`; an absolute one names a folder of its own, which its labels lie in too. Exports
    that say `../train/images` and mean `train/images` are understood, as by Ultralytics.
    """
    root = root_of(path, content)
    try:
        if Path(part).is_absolute():
            where = Path(part)
            parts = where.parts
            above = len(parts) - 1 - parts[::-1].index("images") if "images" in parts else len(parts)
            own = Path(*parts[:above])
            return (own if where.is_dir() else where.parent), where
        where = root / part
        if not where.exists() and part.startswith("../"):
            where = root / part[3:]
        if not where.exists():
            raise DataError(f"{where} does not exist, expected a folder or a list of pictures; correct {path}")
        if not where.resolve().is_relative_to(root.resolve()):
            raise DataError(
                f"{path} names {printable(part)!r}, which leads out of {root}; set `path` to the folder that holds it"
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path} names {printable(part)[:80]!r}, which is not a path ({error})"[:300]) from error
    return root, where


def _pictures_of(path: Path, content: dict[str, Any], part: str) -> list[tuple[Path, Path]]:
    root, where = part_folder(path, content, part)
    if where.is_dir():
        return [(root, file) for file in _files_below(where)]
    lines = [line.strip() for line in read_text(where, "a list of pictures").splitlines()]
    named = [line for line in lines if line]
    return [(root, Path(line) if Path(line).is_absolute() else where.parent / line) for line in named]


def _files_below(folder: Path) -> list[Path]:
    """Pictures of a folder, searched to the bottom, sorted."""
    return sorted(file for file in folder.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)


def _lines_of(root: Path, picture: Path, n_classes: int | None) -> Iterable[NDArray[np.float64]]:
    label = label_of(picture)
    if not label.exists() and not label.is_symlink():
        return []  # a picture without a label file has no objects: Ultralytics' convention
    return read_label_lines(picture_inside(root, str(label.absolute()), str(picture)), n_classes)


def _picture(root: Path, file: Path, names: tuple[str, ...]) -> LabelledPicture:
    """Read one picture's size and labels, and bring them to pixels."""
    path = picture_inside(root, str(file.absolute()), f"the data set in {root}")
    try:
        height, width = picture_size(path)
    except InputError as error:
        raise DataError(str(error)) from error
    scale = np.array([width, height], np.float64)
    boxes, classes, masks = [], [], list[Segmentation | None]()
    for values in _lines_of(root, file, len(names)):
        if len(values) == 5:
            centre, size = values[1:3] * scale, values[3:5] * scale
            boxes.append(np.concatenate([centre - size / 2, centre + size / 2]))
            masks.append(None)
        else:
            ring = values[1:].reshape(-1, 2) * scale
            boxes.append(np.concatenate([ring.min(0), ring.max(0)]).clip(0, [width, height, width, height]))
            masks.append([ring.ravel().tolist()])
        classes.append(int(values[0]))
    xyxy = np.array(boxes, np.float64).reshape(-1, 4)
    return LabelledPicture(
        path=path,
        size_px=(height, width),
        xyxy=xyxy.astype(np.float32),
        class_id=np.array(classes, np.int32),
        area_px=np.array([_area(box, mask) for box, mask in zip(xyxy, masks, strict=True)], np.float64),
        crowd=np.zeros(len(boxes), np.bool_),
        segmentations=tuple(masks),
        class_names=names,
    )


def _area(box: NDArray[np.float64], mask: Segmentation | None) -> float:
    if not isinstance(mask, list):
        return float((box[2:] - box[:2]).prod())
    x, y = np.array(mask[0]).reshape(-1, 2).T
    return float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2)
