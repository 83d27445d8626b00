"""Pascal VOC's XML: one file per picture, boxes in pixels, in; a `LabelledSet` out.

Numbers are taken as the edges of the box, as labelling tools and DIOR write them; the original VOC counts pixels from
1, so its boxes lie up to a pixel right and below. XML that declares entities or a document type is refused unread: such
can name other files or grow without end.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgekd.data.inside import checked_names, picture_inside, printable, read_text
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.errors import DataError, InputError
from edgekd.runtime.picture_size import picture_size
from edgekd.runtime.sources import PICTURE_SUFFIXES

FOLDERS = ("Annotations", "annotations", ".")
PICTURE_FOLDERS = ("JPEGImages", "images", ".")
_TEXT_LIMIT = 200


def is_voc(folder: Path) -> bool:
    """Whether a folder holds XML files, itself or in `Annotations/`."""
    return any(next((folder / name).glob("*.xml"), None) is not None for name in FOLDERS)


def read_voc(
    folder: Path,
    images: Path | None = None,
    class_names: Iterable[str] | None = None,
    limit: int | None = None,
) -> LabelledSet:
    """Read the XML files of a folder, or of `Annotations/` in it.

    Args:
        folder: of the labels.
        images: of the pictures; None takes `JPEGImages/` or `images/` beside the labels, else the folder itself.
        class_names: in the order of their ids; None takes all that occur, sorted.
        limit: take only the first so many files.

    Raises:
        DataError: a file is damaged or names an unknown class (it is named), or a picture is missing.
    """
    labels = next(folder / name for name in FOLDERS if next((folder / name).glob("*.xml"), None) is not None)
    pictures = images or next(folder / name for name in PICTURE_FOLDERS if (folder / name).is_dir())
    files = sorted(labels.glob("*.xml"))[:limit]
    found = [(file, _objects(file)) for file in files]
    occurring = sorted({name for _, objects in found for name, _ in objects})
    names = checked_names(class_names or occurring, labels) if class_names or occurring else ("object",)
    return LabelledSet(folder, names, tuple(_picture(file, objects, pictures, names) for file, objects in found))


def read_voc_file(path: Path, picture: Path, names: tuple[str, ...]) -> LabelledPicture:
    """Read the labels of one picture whose file is known.

    Raises:
        DataError: the file is missing, damaged or names an unknown class, or the picture is unreadable.
    """
    return _labelled(path, _objects(path), picture, names)


Objects = list[tuple[str, tuple[float, float, float, float]]]


def _objects(path: Path) -> Objects:
    """Return (class name, xyxy) of every object of a file."""
    text = read_text(path, "Pascal VOC labels (.xml)")
    if "<!DOCTYPE" in text.upper() or "<!ENTITY" in text.upper():
        raise DataError(f"{path} declares a document type or entities, expected plain Pascal VOC labels; remove them")
    try:
        root = ET.fromstring(text)
        return [(_text(entry, "name"), _box(entry.find("bndbox"))) for entry in root.iter("object")]
    except (ET.ParseError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not an annotation of Pascal VOC: {str(error)[:120]}") from error


def _box(entry: ET.Element | None) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(_text(entry, key)) for key in ("xmin", "ymin", "xmax", "ymax"))
    if not np.isfinite([x1, y1, x2, y2]).all() or x2 < x1 or y2 < y1:
        raise ValueError(f"the box {x1:g} {y1:g} {x2:g} {y2:g} has no finite sides")
    return x1, y1, x2, y2


def _text(entry: ET.Element | None, key: str) -> str:
    found = None if entry is None else entry.findtext(key)
    if found is None or not found.strip() or len(found) > _TEXT_LIMIT:
        raise ValueError(f"<{key}> is missing or too long")
    return found.strip()


def _picture(path: Path, objects: Objects, folder: Path, names: tuple[str, ...]) -> LabelledPicture:
    """Find the picture by the label's own name; what `<filename>` says is often of another machine."""
    for suffix in (*PICTURE_SUFFIXES, *(suffix.upper() for suffix in PICTURE_SUFFIXES)):
        if (folder / f"{path.stem}{suffix}").exists():
            return _labelled(path, objects, picture_inside(folder, f"{path.stem}{suffix}", str(path)), names)
    raise DataError(f"{path} has no picture {path.stem}{{{','.join(PICTURE_SUFFIXES)}}} in {folder}; give their folder")


def _labelled(path: Path, objects: Objects, picture: Path, names: tuple[str, ...]) -> LabelledPicture:
    unknown = [name for name, _ in objects if name not in names]
    if unknown:
        raise DataError(
            f"{path} names the class {printable(unknown[0])[:60]!r}, expected one of {', '.join(names[:8])}"
            f"{', ...' if len(names) > 8 else ''}"
        )
    try:
        size_px = picture_size(picture)
    except InputError as error:
        raise DataError(str(error)) from error
    xyxy = np.array([box for _, box in objects], np.float64).reshape(-1, 4)
    return LabelledPicture(
        path=picture,
        size_px=size_px,
        xyxy=xyxy.astype(np.float32),
        class_id=np.array([names.index(name) for name, _ in objects], np.int32),
        area_px=(xyxy[:, 2:] - xyxy[:, :2]).prod(1),
        crowd=np.zeros(len(objects), np.bool_),
        segmentations=(None,) * len(objects),
        class_names=names,
    )
