"""The one entry for data: labels of any format become one `LabelledSet`, and its pictures become pixels."""

from __future__ import annotations

from pathlib import Path

from edgekd.data.coco import read_coco
from edgekd.data.dota import is_dota, read_dota
from edgekd.data.inside import printable
from edgekd.data.labels import LabelledPicture, LabelledSet
from edgekd.data.voc import is_voc, read_voc
from edgekd.data.yolo import read_yolo
from edgekd.errors import DataError, InputError
from edgekd.runtime.sources import read_picture
from edgekd.types import UInt8Array

EXPECTED = (
    "COCO labels (.json), an Ultralytics data file (.yaml), or a folder: images/ with labels/ (YOLO), .xml files "
    "(Pascal VOC) or images/ with labelTxt/ (DOTA)"
)


def read_labels(
    path: str | Path,
    images: Path | None = None,
    split: str = "val",
    limit: int | None = None,
    needs_objects: bool = True,
) -> LabelledSet:
    """Read labels of any format.

    Args:
        path: COCO JSON (`.json`), Ultralytics data file (`.yaml`, `.yml`), or a folder of YOLO, Pascal VOC or DOTA
            labels; what lies in the folder decides.
        images: folder of the pictures; None looks where the format keeps them (COCO: `images` beside the file, then
            beside it directly). An Ultralytics data file and a folder of YOLO labels name theirs.
        split: which part of a data file.
        limit: take only the first so many pictures.
        needs_objects: refuse a set in which nothing is labelled.

    Returns:
        The set; its pictures exist and lie in the data folder, its boxes and outlines are finite.

    Raises:
        DataError: the file or a picture is missing, damaged, outside its folder or of another format (file and line or
            entry are named), or nothing is labelled.
    """
    path = Path(path)
    found = _read(path, images, split, limit)
    if needs_objects and not found.n_objects:
        raise DataError(f"{path} labels no object in {len(found)} pictures; give pictures with objects")
    return found


def _read(path: Path, images: Path | None, split: str, limit: int | None) -> LabelledSet:
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise DataError(f"{printable(str(path))[:80]!r} is not a path ({error}), expected {EXPECTED}"[:400]) from error
    if not exists:
        raise DataError(f"{path} does not exist, expected {EXPECTED}")
    suffix = path.suffix.lower()
    if suffix == ".json" and not is_folder:
        return read_coco(path, images, limit)
    if images is not None and (suffix in (".yaml", ".yml") or (path / "images").is_dir()):
        raise DataError(f"{path} names its pictures itself; leave out the images folder {images}")
    if is_folder and is_voc(path):
        return read_voc(path, images, limit=limit)
    if is_folder and is_dota(path):
        return read_dota(path, limit)
    if is_folder or suffix in (".yaml", ".yml"):
        return read_yolo(path, split, limit)
    raise DataError(f"{path} is neither .json nor .yaml nor a folder, expected {EXPECTED}")


def read_pixels(picture: LabelledPicture) -> UInt8Array:
    """Return the picture as (H, W, 3) uint8 BGR, upright: what training, calibration, evaluation and the runtime see.

    Raises:
        DataError: the file cannot be read, or has another size than its labels say.
    """
    try:
        pixels = read_picture(picture.path)
    except InputError as error:
        raise DataError(str(error)) from error
    if pixels.shape[:2] != picture.size_px:
        found, expected = pixels.shape[1::-1], picture.size_px[::-1]
        raise DataError(
            f"{picture.path} has {found[0]}x{found[1]} px and its label says {expected[0]}x{expected[1]}; "
            "label the picture again or restore the one that was labelled"
        )
    return pixels
