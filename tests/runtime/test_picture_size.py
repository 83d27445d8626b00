"""The size from a header is the size of the decoded picture, whatever the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.runtime.picture_size import picture_size
from edgekd.runtime.sources import read_picture

PICTURE = np.random.default_rng(0).integers(0, 255, (30, 50, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".bmp", ".webp"])
def test_header_and_pixels_agree(tmp_path: Path, suffix: str) -> None:
    for name, picture in (("a", PICTURE), ("grey", PICTURE[:, :, 0]), ("thin", PICTURE[:1])):
        path = tmp_path / (name + suffix)
        cv2.imwrite(str(path), picture)
        assert picture_size(path) == read_picture(path).shape[:2] == picture.shape[:2]


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_turned_pictures(tmp_path: Path, orientation: int, kind: str) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(PICTURE)
    exif = image.getexif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    image.save(tmp_path / "a", kind, exif=exif)
    assert picture_size(tmp_path / "a") == read_picture(tmp_path / "a").shape[:2]


def test_progressive_and_large_metadata(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(PICTURE)
    image.save(tmp_path / "a.jpg", progressive=True, icc_profile=b"x" * 200_000, comment=b"SOF \xff\xc0")
    assert picture_size(tmp_path / "a.jpg") == (30, 50)


def test_cut_and_missing_files_are_refused(tmp_path: Path) -> None:
    for suffix in (".jpg", ".png"):
        path = tmp_path / ("a" + suffix)
        cv2.imwrite(str(path), PICTURE)
        whole = path.read_bytes()
        for n_bytes in (0, 1, 10, 30, len(whole) // 2, len(whole) - 3):
            path.write_bytes(whole[:n_bytes])
            try:
                size = picture_size(path)
            except InputError:
                continue
            assert size == (30, 50)  # only what the decoder itself accepts
            assert read_picture(path).shape[:2] == (30, 50)
    with pytest.raises(InputError, match="does not exist"):
        picture_size(tmp_path / "none.png")


def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".png", PICTURE)[1].tobytes())
    data[16:24] = (2**31 - 1).to_bytes(4, "big") * 2
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(InputError):
        picture_size(tmp_path / "bomb.png")
