"""Results of a large picture go out: a label raster strip by strip, and a shrunk overlay.

A `ChainResult` in pixels of the whole picture goes in. Neither needs the picture or a full mask in memory.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgekd.errors import BackendUnavailable, InputError
from edgekd.runtime.results.draw import overlay
from edgekd.runtime.windows import Georeference, Windows
from edgekd.types import ChainResult, Detections, Masks, UInt8Array

BLOCK_PX = 512
PREVIEW_PX = 4096
"""Longer side of the overlay of a large picture."""


def write_label_raster(path: Path, result: ChainResult, place: Georeference | None) -> None:
    """Write 0 for background and 1 + index of the object elsewhere as a Cloud-Optimized GeoTIFF.

    Values are uint16, or uint32 from 65,535 objects on; the more confident object wins. The file appears in one step.

    Args:
        path: ends in .tif.
        result: objects of the whole picture, the most confident first.
        place: map coordinates; None writes pixels that lie nowhere.

    Raises:
        BackendUnavailable: rasterio is not installed.
        InputError: the file cannot be written, the disk is full.
    """
    try:
        import rasterio
        import rasterio.errors
        import rasterio.shutil
    except ImportError as error:
        raise BackendUnavailable(
            f"masks of a large picture are written with rasterio ({error}); install it: pip install 'edgekd[geo]'"
        ) from error
    plain, whole = (path.with_name(f".{path.stem}.{part}.tif") for part in ("strips", "cog"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); give another folder") from error
    try:
        with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=64 << 20):
            warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
            with rasterio.open(plain, "w", **_profile(result, place)) as file:
                for top, labels in label_strips(result, BLOCK_PX):
                    file.write(labels, 1, window=((top, top + len(labels)), (0, labels.shape[1])))
            rasterio.shutil.copy(plain, whole, driver="COG", compress="DEFLATE", overview_resampling="nearest")
        whole.replace(path)
    except (OSError, rasterio.errors.RasterioError) as error:
        reason = str(error.__cause__ or error).splitlines()[-1]
        raise InputError(f"{path} cannot be written ({reason}); free space or give another folder") from error
    finally:
        plain.unlink(missing_ok=True)
        whole.unlink(missing_ok=True)


def label_strips(result: ChainResult, rows: int) -> Any:
    """Yield (top, labels (at most `rows`, W)) from above to below; together they are `label_map`."""
    height, width = result.masks.size_px
    windows = result.masks.windows
    dtype = np.uint16 if len(result) < np.iinfo(np.uint16).max else np.uint32
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        labels: NDArray[Any] = np.zeros((bottom - top, width), dtype)
        for index in np.flatnonzero((windows[:, 1] < bottom) & (windows[:, 3] > top))[::-1]:
            left, upper, right, lower = (int(value) for value in windows[index])
            first, last = max(upper, top), min(lower, bottom)
            crop = result.masks.crops[index][first - upper : last - upper]
            labels[first - top : last - top, left:right][crop] = index + 1
        yield top, labels


def preview(picture: Windows, result: ChainResult, longest_px: int = PREVIEW_PX) -> UInt8Array:
    """Draw a result on the shrunk picture: (h, w, 3) uint8 BGR, its longer side at most `longest_px`."""
    small = picture.preview(longest_px)
    return overlay(small, shrink(result, small.shape[:2]))


def shrink(result: ChainResult, size_px: tuple[int, int]) -> ChainResult:
    """Return the result as it is on the picture resized to (height, width); each mask keeps at least one pixel."""
    height, width = result.masks.size_px
    scale = np.array([size_px[1] / width, size_px[0] / height] * 2)
    low = np.floor(result.masks.windows[:, :2] * scale[:2]).astype(np.int32)
    high = np.minimum(np.ceil(result.masks.windows[:, 2:] * scale[2:]), size_px[::-1]).astype(np.int32)
    windows = np.concatenate([low, high], 1)
    crops = [
        cv2.resize(crop * np.uint8(255), (int(r - x), int(b - t)), interpolation=cv2.INTER_AREA).astype(np.bool_)
        if crop.size
        else np.zeros((b - t, r - x), np.bool_)
        for crop, (x, t, r, b) in zip(result.masks.crops, windows, strict=True)
    ]
    found = result.detections
    corners = None if found.corners is None else (found.corners * scale[:2]).astype(np.float32)
    detections = Detections((found.xyxy * scale).astype(np.float32), found.confidence, found.class_id, corners)
    masks = Masks(size_px, windows, crops, result.masks.predicted_iou)
    return replace(result, detections=detections, masks=masks)


def _profile(result: ChainResult, place: Georeference | None) -> dict[str, Any]:
    import rasterio

    height, width = result.masks.size_px
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": "uint16" if len(result) < np.iinfo(np.uint16).max else "uint32",
        "compress": "deflate",
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "nodata": 0,
    }
    if place is not None:
        profile |= {"transform": rasterio.Affine(*place.transform), "crs": place.crs}
    return profile
