"""Calibration sets: which pictures ranges are measured on, by file name and sha256, and how they are preprocessed.

A folder becomes a set; a set and a folder become pictures, checked to be the very same files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.errors import DataError, InputError
from edgekd.files import read_json, sha256_of
from edgekd.graphs import StageName
from edgekd.model_set import ImageInput, brief
from edgekd.runtime.sources import pictures_in, read_picture

MAX_BYTES = 16 << 20


class CalibrationPicture(BaseModel):
    """One picture: its file name and the sha256 of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class CalibrationSet(BaseModel):
    """The content of a set file; `preprocessing` is what the runtime did to the pictures, a stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    pictures: tuple[CalibrationPicture, ...] = Field(min_length=1)
    preprocessing: dict[StageName, ImageInput] = {}

    def sha256(self) -> str:
        """Return the hash of the pictures and their preprocessing; the name does not count."""
        content = self.model_dump(mode="json", exclude={"name"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def make_set(folder: Path, n_pictures: int, preprocessing: dict[StageName, ImageInput]) -> CalibrationSet:
    """Take pictures of a folder at even distances in the order of their names.

    Raises:
        DataError: the folder is missing or empty, or some of the pictures cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder, expected calibration pictures; give another folder as `images`")
    try:
        found = pictures_in(folder)
    except InputError as error:
        raise DataError(f"there is nothing to calibrate on: {error}") from error
    rows = np.unique(np.linspace(0, len(found) - 1, min(n_pictures, len(found))).round().astype(int))
    chosen = [found[row] for row in rows]
    _check_readable(chosen)
    pictures = tuple(CalibrationPicture(id=path.name, sha256=sha256_of(path)) for path in chosen)
    return CalibrationSet(name=folder.name, pictures=pictures, preprocessing=preprocessing)


def read_set(path: Path) -> CalibrationSet:
    """Read a set file.

    Raises:
        DataError: it is missing, or no calibration set.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist, expected a calibration set (.json)")
    try:
        return CalibrationSet.model_validate(read_json(path, MAX_BYTES))
    except (ValidationError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a calibration set ({brief(error)}); see calibration/README.md") from error


def check_set(known: CalibrationSet, folder: Path, preprocessing: dict[StageName, ImageInput]) -> CalibrationSet:
    """Check that a folder holds exactly the pictures of a set, and that they will be preprocessed as it says.

    Returns:
        The set with the preprocessing of this run.

    Raises:
        DataError: a picture is missing or was changed, or a network's input differs from the set's.
    """
    for picture in known.pictures:
        path = folder / picture.id
        if Path(picture.id).name != picture.id or not path.is_file():
            raise DataError(
                f"{folder} lacks {picture.id} of the calibration set {known.name}; give its own pictures as `images`"
            )
        if sha256_of(path) != picture.sha256:
            raise DataError(
                f"{path} is not the picture of the calibration set {known.name} (its sha256 differs); "
                "restore it, or leave `set_file` out"
            )
    for stage, spec in known.preprocessing.items():
        if stage in preprocessing and preprocessing[stage] != spec:
            raise DataError(
                f"the calibration set {known.name} is for another {stage} input "
                f"({spec.width_px}x{spec.height_px}); export with that size, or leave `set_file` out"
            )
    _check_readable([folder / picture.id for picture in known.pictures])
    return known.model_copy(update={"preprocessing": preprocessing})


def _check_readable(paths: list[Path]) -> None:
    broken = []
    for path in paths:
        try:
            read_picture(path)
        except InputError as error:
            broken.append(str(error).split(";")[0])
    if broken:
        raise DataError(
            f"{len(broken)} of {len(paths)} calibration pictures cannot be used (first: {broken[0]}); "
            "remove or replace them"
        )
