"""One result in the form that a user asks for: a file by its suffix, or the arrays of another library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgekd.errors import BackendUnavailable, InputError
from edgekd.files import write_bytes, write_text
from edgekd.runtime.results.draw import mask_preview, overlay
from edgekd.runtime.results.formats import csv_text, label_map, objects_json, yolo_lines
from edgekd.types import ChainResult, UInt8Array

SUFFIXES = (".json", ".csv", ".txt", ".png", ".jpg")


def save_result(result: ChainResult, path: Path, picture: UInt8Array | None) -> Path:
    """Write one result; see `ChainResult.save` for arguments and errors."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"path is {path}, expected one that ends in {', '.join(SUFFIXES)}")
    if picture is not None and picture.shape[:2] != result.masks.size_px:
        raise InputError(f"picture has shape {picture.shape}, expected the one that was run: {result.masks.size_px}")
    if suffix in (".png", ".jpg"):
        write_bytes(path, cv2.imencode(suffix, _pixels(result, suffix, picture))[1].tobytes())
    else:
        write_text(path, _text(result, path))
    return path


def _pixels(result: ChainResult, suffix: str, picture: UInt8Array | None) -> Any:
    if picture is not None:
        return overlay(picture, result)
    return label_map(result) if suffix == ".png" else mask_preview(result)


def _text(result: ChainResult, path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return yolo_lines(result)
    objects = objects_json(result)
    if suffix == ".csv":
        entry = {"name": path.stem, "source": "", "objects": objects}
        return csv_text([entry], oriented=result.detections.corners is not None)
    height, width = result.masks.size_px
    content = {"width_px": width, "height_px": height, "objects": objects, "times_ms": dict(result.times_ms)}
    return json.dumps(content, indent=1) + "\n"


def supervision_detections(result: ChainResult) -> Any:
    """Return `supervision.Detections`; see `ChainResult.to_supervision`."""
    try:
        import supervision
    except ImportError as error:
        raise BackendUnavailable(
            f"supervision cannot be imported ({error}); install it with: pip install supervision"
        ) from error
    found = result.detections
    masks = np.zeros((len(result), *result.masks.size_px), np.bool_)
    for index in range(len(result)):
        masks[index] = result.masks.full(index)
    names = np.array([result.class_names[int(class_id)] for class_id in found.class_id], str)
    # The key under which supervision looks for the corners of turned boxes.
    turned = {} if found.corners is None else {"xyxyxyxy": found.corners}
    return supervision.Detections(
        xyxy=found.xyxy,
        mask=masks,
        confidence=found.confidence,
        class_id=found.class_id.astype(int),
        data={"class_name": names, **turned},
    )
