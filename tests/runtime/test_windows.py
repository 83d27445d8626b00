"""Windows of rasters are the pixels of the whole picture, and every broken raster is one sentence."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekd.errors import BackendUnavailable, InputError
from edgekd.runtime import windows as windows_module
from edgekd.runtime.sources import read_picture
from edgekd.runtime.windows import BandOptions, open_windows

rasterio = pytest.importorskip("rasterio")


def write_raster(path: Path, values: np.ndarray, **profile: Any) -> Path:
    """Write (bands, h, w) as a tiled GeoTIFF."""
    n, height, width = values.shape
    profile = {"tiled": True, "blockxsize": 128, "blockysize": 128} | profile
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=n, height=height, width=width, dtype=values.dtype, **profile
        ) as file:
            file.write(values)
    return path


@pytest.fixture
def values() -> np.ndarray:
    return np.random.default_rng(0).integers(1, 256, (3, 300, 400), np.uint8)


def test_eight_bits_are_what_read_picture_gives(tmp_path: Path, values: np.ndarray) -> None:
    path = write_raster(tmp_path / "a.tif", values)
    picture = read_picture(path)
    raster = open_windows(path)
    assert raster.size_px == (300, 400) and raster.georeference is None
    np.testing.assert_array_equal(raster.read((30, 50, 390, 170)), picture[50:170, 30:390])
    assert raster.preview(100).shape == (75, 100, 3)
    raster.close()


def test_plain_pictures_have_windows_too(tmp_path: Path, values: np.ndarray) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), values.transpose(1, 2, 0))
    plain = open_windows(path)
    np.testing.assert_array_equal(plain.read((10, 20, 40, 60)), read_picture(path)[20:60, 10:40])
    assert plain.preview(100).shape == (75, 100, 3) and plain.preview(1000).shape == (300, 400, 3)
    plain.close()


def test_one_stretch_of_sixteen_bits_holds_everywhere(tmp_path: Path, values: np.ndarray) -> None:
    deep = values.astype(np.uint16) * 8
    deep[:, :200] //= 4  # a dark half must stay dark
    deep[0, 299, 399] = 2047
    path = write_raster(tmp_path / "a.tif", deep, photometric="rgb")
    raster = open_windows(path)
    np.testing.assert_array_equal(raster.read((0, 0, 400, 200)), read_picture(path)[:200])
    raster.close()
    stretched = open_windows(path, BandOptions(stretch=(0, 510)))
    assert stretched.read((0, 0, 400, 150)).max() == 255
    stretched.close()


def test_bands_nodata_and_floats(tmp_path: Path, values: np.ndarray) -> None:
    many = np.concatenate([values, values[:1] // 2])
    path = write_raster(tmp_path / "a.tif", many)
    raster = open_windows(path, BandOptions(bands=(4, 3, 2)))
    np.testing.assert_array_equal(raster.read((0, 0, 400, 300)), many[[1, 2, 3]].transpose(1, 2, 0))
    raster.close()
    floats = (values / 255).astype(np.float32)
    floats[:, :10] = np.nan
    floats[:, 10:20] = -9999
    raster = open_windows(write_raster(tmp_path / "b.tif", floats, nodata=-9999))
    pixels = raster.read((0, 0, 400, 300))
    assert not pixels[:20].any()
    assert np.abs(pixels[20:].astype(int) - values[::-1].transpose(1, 2, 0)[20:]).max() <= 1
    raster.close()


def test_a_palette_becomes_colours(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    numbers = np.arange(4, dtype=np.uint8).repeat(64).reshape(1, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=1, height=16, width=16, dtype="uint8", photometric="palette"
        ) as file:
            file.write(numbers)
            file.write_colormap(1, {0: (0, 0, 0), 1: (255, 0, 0), 2: (0, 255, 0), 3: (0, 0, 255)})
    raster = open_windows(path)
    np.testing.assert_array_equal(raster.read((0, 0, 16, 16))[[4, 15], 0], [[0, 0, 255], [255, 0, 0]])
    raster.close()


def test_the_georeference_is_the_files(tmp_path: Path, values: np.ndarray) -> None:
    transform = rasterio.Affine(0.5, 0.0, 500_000, 0.0, -0.5, 5_400_000)
    raster = open_windows(write_raster(tmp_path / "a.tif", values, crs="EPSG:32633", transform=transform))
    place = raster.georeference
    assert place is not None and place.crs == "EPSG:32633" and place.transform[:3] == (0.5, 0.0, 500_000.0)
    raster.close()


def test_broken_rasters_are_one_sentence(tmp_path: Path, values: np.ndarray) -> None:
    whole = write_raster(tmp_path / "whole.tif", values, compress="deflate").read_bytes()
    (tmp_path / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.tif").write_text("not a raster")
    for name in ("cut.tif", "text.tif"):
        with pytest.raises(InputError, match=r"cannot be read .*\n?"):
            open_windows(tmp_path / name).read((0, 0, 400, 300))
    with pytest.raises(InputError, match="has 3 bands and band 7"):
        open_windows(tmp_path / "whole.tif", BandOptions(bands=(7, 3, 2)))
    with pytest.raises(InputError, match="uint32 values and no range"):
        open_windows(write_raster(tmp_path / "long.tif", values.astype(np.uint32)))
    with pytest.raises(InputError, match="does not exist"):
        open_windows(tmp_path / "none.tif")
    with pytest.raises(InputError, match="bands is 4,3, expected three"):
        BandOptions(bands=(4, 3))
    with pytest.raises(InputError, match="expected a rising pair"):
        BandOptions(stretch=(5, 5))


def test_without_rasterio_a_tiff_is_read_whole(
    tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_raster(tmp_path / "a.tif", values)
    monkeypatch.setitem(__import__("sys").modules, "rasterio", None)
    monkeypatch.setattr(windows_module, "has_rasterio", lambda: False)
    np.testing.assert_array_equal(open_windows(path).read((0, 0, 9, 9)), read_picture(path)[:9, :9])
    with pytest.raises(BackendUnavailable, match="need rasterio"):
        open_windows(path, BandOptions(bands=(3, 2, 1)))
