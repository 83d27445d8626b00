"""Small label files, as correct as they get, for tests to read or to damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 9,
            "bbox": [10, 20, 30, 10],
            "area": 150.0,
            "iscrowd": 0,
            "segmentation": [[10, 20, 40, 20, 40, 30]],
        }
    ],
    "categories": [{"id": 4, "name": "ship"}, {"id": 9, "name": "storage_tank"}],
}


def write_picture(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((height, width, 3), 90, np.uint8))


def write_coco(folder: Path, change: dict[str, Any] | None = None) -> Path:
    write_picture(folder / "images" / "a.jpg")
    path = folder / "labels.json"
    path.write_text(json.dumps({**COCO, **(change or {})}))
    return path


def write_yolo(folder: Path, line: str) -> Path:
    write_picture(folder / "images" / "val" / "a.jpg")
    (folder / "labels" / "val").mkdir(parents=True)
    (folder / "labels" / "val" / "a.txt").write_text(line)
    path = folder / "data.yaml"
    path.write_text("path: .\nval: images/val\nnames: {0: ship, 1: storage_tank}\n")
    return path
