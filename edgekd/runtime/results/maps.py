"""Masks in map coordinates: GeoJSON and GeoPackage, for pictures that lie somewhere."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from edgekd.errors import BackendUnavailable, InputError
from edgekd.files import atomic_file, write_text
from edgekd.runtime.results.formats import geojson
from edgekd.runtime.windows import RASTER_SUFFIXES, Georeference, has_rasterio, open_windows
from edgekd.types import ChainResult


def georeference_of(path: Path) -> Georeference:
    """Return where the pixels of a picture lie.

    Raises:
        BackendUnavailable: rasterio is not installed.
        InputError: the picture lies nowhere.
    """
    if not has_rasterio():
        raise BackendUnavailable("map coordinates need rasterio; install it with: pip install 'edgekd[geo]'")
    place = None
    if path.suffix.lower() in RASTER_SUFFIXES:
        windows = open_windows(path)
        place = windows.georeference
        windows.close()
    if place is None:
        raise no_place(path)
    return place


def pixel_area(path: Path) -> float:
    """Return the area of a picture's pixel in square units of its map, such as square metres.

    Raises:
        BackendUnavailable: rasterio is not installed.
        InputError: the picture has no georeference, or its map counts degrees.
    """
    try:
        place = georeference_of(path)
    except InputError as error:
        raise InputError(
            f"min_area counts units of a map and {path} has no georeference; give a GeoTIFF, or a min_area_px"
        ) from error
    if place.in_degrees:
        raise InputError(
            f"min_area counts units of a map and those of {path} are degrees, which are not lengths; give a "
            "min_area_px, or a picture on a map in metres"
        )
    a, b, _, d, e, _ = place.transform
    return abs(a * e - b * d)


def no_place(path: Path) -> InputError:
    """Say that a picture lies nowhere."""
    return InputError(f"{path} has no georeference; give a GeoTIFF, or leave the formats geojson and gpkg out")


def write_maps(stem: Path, result: ChainResult, place: Georeference, formats: Collection[str]) -> None:
    """Write STEM.geojson and STEM.gpkg, as far as they are among `formats`.

    Raises:
        BackendUnavailable: pyogrio or shapely, for GeoPackage, is not installed.
        InputError: a file cannot be written.
    """
    collection = geojson(result, place.transform, place.crs)
    if "geojson" in formats:
        write_text(stem.with_name(f"{stem.name}.geojson"), json.dumps(collection) + "\n")
    if "gpkg" in formats:
        _write_geopackage(stem.with_name(f"{stem.name}.gpkg"), collection["features"], place.crs)


def _write_geopackage(path: Path, features: list[dict[str, object]], crs: str | None) -> None:
    try:
        import numpy as np
        import pyogrio
        import shapely.geometry
    except ImportError as error:
        raise BackendUnavailable(
            f"GeoPackage needs pyogrio and shapely ({error}); install them with: pip install 'edgekd[geo]'"
        ) from error
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    properties: list[dict[str, object]] = [feature["properties"] for feature in features]  # type: ignore[misc]
    with atomic_file(path) as temporary:
        temporary.unlink()  # GDAL refuses an empty file
        try:
            pyogrio.raw.write(
                temporary,
                geometry=np.array([shapely.to_wkb(shape) for shape in shapes], object),
                field_data=[
                    np.array([entry["class_name"] for entry in properties], object),
                    np.array([entry["confidence"] for entry in properties], np.float64),
                ],
                fields=["class_name", "confidence"],
                geometry_type="MultiPolygon",
                crs=crs,
                driver="GPKG",
                layer="objects",
            )
        except pyogrio.errors.DataSourceError as error:
            raise InputError(f"{path} cannot be written ({error}); free space or give another folder") from error
