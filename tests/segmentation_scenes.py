"""Pictures with simple shapes and their polygons, for the fine-tuning tests."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from edgekd.data.labels import LabelledPicture, draw_mask
from edgekd.data.read import read_labels

CLASSES = ("disc", "square")


def ring(name: str, x: int, y: int, r: int) -> list[float]:
    if name == "square":
        return [x - r, y - r, x + r, y - r, x + r, y + r, x - r, y + r]
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], axis=1).round(2).ravel().tolist()


def write_scenes(folder: Path, n: int = 3, side: int = 128) -> Path:
    """n pictures of bright discs and squares on noise, with `annotations.json`; returns its path."""
    rng = np.random.default_rng(7)
    images, annotations = [], []
    for i in range(n):
        picture = rng.integers(0, 60, (side, side, 3), np.uint8)
        for k, name in enumerate(CLASSES):
            x, y, r = side // 4 + k * side // 2, side // 4 + (i % 2) * side // 3, side // 8
            points = np.array(ring(name, x, y, r), np.float32).reshape(-1, 2)
            picture[draw_mask([points], (side, side)) > 0] = 200, 180 - 60 * k, 90 + 60 * k
            annotations.append(
                {"id": len(annotations), "image_id": i, "category_id": k, "segmentation": [points.ravel().tolist()]}
            )
        cv2.imwrite(str(folder / f"{i}.png"), picture)
        images.append({"id": i, "file_name": f"{i}.png", "width": side, "height": side})
    categories = [{"id": k, "name": name} for k, name in enumerate(CLASSES)]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def scenes(folder: Path, n: int = 3, side: int = 128) -> list[LabelledPicture]:
    return list(read_labels(write_scenes(folder, n, side), folder).for_masks().pictures)
