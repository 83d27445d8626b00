"""Windows of a large picture: a file goes in, (h, w, 3) uint8 BGR windows of it come out, without the rest in memory.

GeoTIFF, JPEG 2000 and other rasters are read window by window with rasterio; plain pictures are decoded once with
OpenCV, since their formats have no windows. One stretch to 8 bits holds for all windows of a file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BackendUnavailable, InputError
from edgekd.runtime.sources import read_picture
from edgekd.runtime.tiles import Window
from edgekd.types import UInt8Array

RASTER_SUFFIXES = (".tif", ".tiff", ".jp2", ".vrt", ".img")
SAMPLE_PX = 2048
"""The stretch of a file is found on at most this many rows and columns of it."""

N_STRIPS = 16
"""Samples and previews are read in so many parts, so that a damaged one costs no more."""

CACHE_BYTES = 64 << 20
"""What GDAL may keep of decoded blocks; its own choice is a share of the machine's memory."""


@dataclass(frozen=True)
class BandOptions:
    """Which bands become red, green and blue, and how their values become 0..255.

    Attributes:
        bands: numbers of the red, green and blue band, from 1; None takes the first three, or one band as grey.
        stretch: values that become 0 and 255; None keeps 8 bits as they are, divides 16 bits by the power of two that
            the brightest value of a sample needs, and multiplies floats up to 1 by 255.
    """

    bands: tuple[int, ...] | None = None
    stretch: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            InputError: not one or three bands from 1 on, or a stretch that does not rise.
        """
        if self.bands is not None and (len(self.bands) not in (1, 3) or min(self.bands) < 1):
            text = ",".join(str(band) for band in self.bands)
            raise InputError(f"bands is {text}, expected three numbers from 1, such as 4,3,2, or one")
        if self.stretch is not None and not self.stretch[0] < self.stretch[1]:
            raise InputError(f"stretch is {self.stretch[0]},{self.stretch[1]}, expected a rising pair such as 0,3000")


@dataclass(frozen=True)
class Georeference:
    """Where the pixels lie.

    Attributes:
        transform: (a, b, c, d, e, f): x = a * column + b * row + c, y = d * column + e * row + f.
        crs: the coordinate system as "EPSG:32633" or WKT; None when the file does not say.
        in_degrees: the coordinates are longitude and latitude.
    """

    transform: tuple[float, ...]
    crs: str | None
    in_degrees: bool = False


class Windows(Protocol):
    """A picture that is read in parts."""

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width)."""

    @property
    def georeference(self) -> Georeference | None:
        """None for a picture that lies nowhere."""

    def read(self, window: Window) -> UInt8Array:
        """Return a window as (h, w, 3) uint8 BGR.

        Raises:
            InputError: this part of the file is damaged.
        """

    def preview(self, longest_px: int) -> UInt8Array:
        """Return the whole picture, shrunk to at most so many pixels on its longer side."""

    def close(self) -> None:
        """Let go of the file."""


class ArrayWindows:
    """Windows of a picture in memory: (H, W, 3) uint8 BGR."""

    georeference: Georeference | None = None

    def __init__(self, picture: UInt8Array) -> None:
        self._picture = picture

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width)."""
        return self._picture.shape[0], self._picture.shape[1]

    def read(self, window: Window) -> UInt8Array:
        """Return a copy of a window."""
        left, top, right, bottom = window
        return np.ascontiguousarray(self._picture[top:bottom, left:right])

    def preview(self, longest_px: int) -> UInt8Array:
        """Return the picture, shrunk where it is larger."""
        height, width = _shrunk(self.size_px, longest_px)
        if (height, width) == self.size_px:
            return self._picture.copy()
        return np.asarray(cv2.resize(self._picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def close(self) -> None:
        """Nothing is open."""


class RasterWindows:
    """Windows of a raster file, read with rasterio; one thread at a time may read."""

    def __init__(self, path: Path, options: BandOptions) -> None:
        rasterio = _rasterio()
        self._path = path
        self._env = rasterio.Env(GDAL_CACHEMAX=CACHE_BYTES)
        self._env.__enter__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                self._file = rasterio.open(path)
            self._bands = _bands(path, self._file, options.bands)
            self._palette = _palette(self._file)
            self._to_8_bits = self._stretch(options.stretch)
        except rasterio.errors.RasterioError as error:
            self._env.__exit__(None, None, None)
            raise InputError(f"{path} cannot be read as a raster ({_reason(error)}); give a whole file") from error
        except InputError:
            self._env.__exit__(None, None, None)
            raise

    @property
    def size_px(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self._file.height), int(self._file.width)

    @property
    def georeference(self) -> Georeference | None:
        """None when the file has no transform."""
        if self._file.transform.is_identity:
            return None
        crs = self._file.crs
        in_degrees = bool(crs and crs.is_geographic)
        return Georeference(tuple(self._file.transform)[:6], crs.to_string() if crs else None, in_degrees)

    def read(self, window: Window) -> UInt8Array:
        """Return a window; pixels without data are black.

        Raises:
            InputError: this part of the file is damaged.
        """
        left, top, right, bottom = window
        return self._pixels(self._values(((top, bottom), (left, right)), (bottom - top, right - left)))

    def preview(self, longest_px: int) -> UInt8Array:
        """Return the picture, shrunk where it is larger; overviews of the file are used, damaged parts stay black."""
        height, width = _shrunk(self.size_px, longest_px)
        picture = np.zeros((height, width, 3), np.uint8)
        for rows, values in self._strips((height, width)):
            picture[rows] = self._pixels(values)
        return picture

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._env.__exit__(None, None, None)

    def _strips(self, size_px: tuple[int, int]) -> Iterator[tuple[slice, NDArray[Any]]]:
        """The whole file at another size, in strips of rows; those that are damaged are left out."""
        height, width = self.size_px
        edges = np.linspace(0, size_px[0], min(N_STRIPS, size_px[0]) + 1).astype(int)
        for low, high in zip(edges[:-1], edges[1:], strict=True):
            top, bottom = (round(edge * height / size_px[0]) for edge in (low, high))
            with suppress(InputError):
                yield slice(low, high), self._values(((top, bottom), (0, width)), (high - low, size_px[1]))

    def _pixels(self, values: NDArray[Any]) -> UInt8Array:
        pixels = self._to_8_bits(values)
        pixels[~self._valid(values)] = 0
        if self._palette is not None:
            return np.asarray(self._palette[pixels[0]], np.uint8)
        planes = [pixels[0]] * 3 if len(pixels) == 1 else list(pixels)
        return np.ascontiguousarray(np.stack(planes[::-1], 2))

    def _values(self, window: tuple[tuple[int, int], tuple[int, int]], size_px: tuple[int, int]) -> NDArray[Any]:
        rasterio = _rasterio()
        try:
            return np.asarray(self._file.read(self._bands, window=window, out_shape=(len(self._bands), *size_px)))
        except rasterio.errors.RasterioError as error:
            (top, bottom), (left, right) = window
            raise InputError(
                f"{self._path}: the window of {right - left}x{bottom - top} px at {left},{top} cannot be read "
                f"({_reason(error)}); copy the file again"
            ) from error

    def _valid(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        """Where a band has data: (bands, h, w)."""
        valid = np.isfinite(values) if values.dtype.kind == "f" else np.ones(values.shape, np.bool_)
        nodata = self._file.nodata
        return valid if nodata is None or np.isnan(nodata) else valid & (values != nodata)

    def _stretch(self, given: tuple[float, float] | None) -> Callable[[NDArray[Any]], UInt8Array]:
        dtypes = {np.dtype(self._file.dtypes[band - 1]) for band in self._bands}
        dtype = np.result_type(*dtypes)
        if given is not None:
            return lambda values: _linear(values, *given)
        if dtype == np.uint8:
            return lambda values: values.copy()
        if dtype not in (np.uint16, np.int16, np.float32, np.float64):
            raise InputError(
                f"{self._path} has {dtype} values and no range is given for them; give a stretch, LOW,HIGH"
            )
        height, width = self.size_px
        strips = self._strips((min(height, SAMPLE_PX), min(width, SAMPLE_PX)))
        peak = max((float(values[self._valid(values)].max(initial=0)) for _, values in strips), default=0.0)
        if dtype.kind == "f":
            return lambda values: _linear(values, 0.0, 1.0 if peak <= 1 else 255.0)
        shift = max(0, int(peak).bit_length() - 8)
        return lambda values: np.clip(values.astype(np.int32) >> shift, 0, 255).astype(np.uint8)


def open_windows(path: str | Path, options: BandOptions | None = None) -> Windows:
    """Open a picture file for reading in parts; close it after use.

    Rasters need the extra `geo` (rasterio). Without it they are decoded as a whole like other pictures, and neither
    bands nor a stretch can be chosen.

    Raises:
        InputError: the file is missing, damaged, or has no such bands.
        BackendUnavailable: bands or a stretch are asked for and rasterio is not installed.
    """
    path, options = Path(path), options or BandOptions()
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a picture file")
    if path.suffix.lower() in RASTER_SUFFIXES and (options != BandOptions() or has_rasterio()):
        return RasterWindows(path, options)
    if options != BandOptions():
        raise InputError(
            f"{path} is not a raster with bands ({', '.join(RASTER_SUFFIXES)}); leave bands and stretch out"
        )
    return ArrayWindows(read_picture(path))


def has_rasterio() -> bool:
    """Return whether rasters can be read in windows here."""
    import importlib.util

    return importlib.util.find_spec("rasterio") is not None


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise BackendUnavailable(
            f"bands, stretches and map coordinates need rasterio ({error}); install it: pip install 'edgekd[geo]'"
        ) from error
    return rasterio


def _bands(path: Path, file: Any, wanted: tuple[int, ...] | None) -> list[int]:
    bands = list(wanted or ((1, 2, 3) if file.count >= 3 else (1,)))
    if max(bands) > file.count:
        raise InputError(
            f"{path} has {file.count} bands and band {max(bands)} is asked for; give bands up to {file.count}"
        )
    return bands


def _palette(file: Any) -> UInt8Array | None:
    """(256, 3) BGR of a file whose values are numbers of colours."""
    if file.count != 1 or file.colorinterp[0].name != "palette":
        return None
    table = np.zeros((256, 3), np.uint8)
    for value, colour in file.colormap(1).items():
        table[value] = colour[2::-1]
    return table


def _linear(values: NDArray[Any], low: float, high: float) -> UInt8Array:
    with np.errstate(invalid="ignore"):
        scaled = (np.nan_to_num(values.astype(np.float32), nan=low) - np.float32(low)) * np.float32(255 / (high - low))
        return np.asarray(np.clip(scaled, 0, 255), np.uint8)


def _shrunk(size_px: tuple[int, int], longest_px: int) -> tuple[int, int]:
    scale = min(1.0, longest_px / max(size_px))
    return max(1, round(size_px[0] * scale)), max(1, round(size_px[1] * scale))


def _reason(error: Exception) -> str:
    """GDAL's own words are the cause of rasterio's."""
    return str(error.__cause__ or error).strip().splitlines()[-1]
