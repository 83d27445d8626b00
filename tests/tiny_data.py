"""A data set of drawn squares, small enough to train on in a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

SIDE_PX = 64


Colour = tuple[int, int, int]
Draw = Callable[[np.random.Generator, np.ndarray, Colour], np.ndarray]
"""Draws one object in place and returns the numbers of its label, px."""


def write_tiny_dataset(root: Path, n_pictures: int = 6) -> Path:
    """Red and blue squares on noise, `n_pictures` a split; returns the YAML."""
    return _write(root, n_pictures, _square)


def write_turned_dataset(root: Path, n_pictures: int = 6) -> Path:
    """Red and blue bars at any angle with YOLO-obb labels, `n_pictures` a split; returns the YAML."""
    return _write(root, n_pictures, _bar)


def _square(generator: np.random.Generator, picture: np.ndarray, colour: Colour) -> np.ndarray:
    x, y = generator.integers(4, SIDE_PX - 24, 2)
    w, h = generator.integers(10, 20, 2)
    picture[y : y + h, x : x + w] = colour
    return np.array([x + w / 2, y + h / 2, w, h])


def _bar(generator: np.random.Generator, picture: np.ndarray, colour: Colour) -> np.ndarray:
    centre, degrees = generator.uniform(18, SIDE_PX - 18, 2), float(generator.uniform(-90, 90))
    quad = cv2.boxPoints((tuple(centre.tolist()), (28.0, 12.0), degrees))
    cv2.fillConvexPoly(picture, quad.round().astype(np.int32), colour)
    return quad.clip(0, SIDE_PX).ravel()


def _write(root: Path, n_pictures: int, draw: Draw) -> Path:
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for index in range(n_pictures):
            picture = generator.integers(0, 60, (SIDE_PX, SIDE_PX, 3), dtype=np.uint8)
            rows = []
            for class_id, colour in enumerate(((0, 0, 255), (255, 0, 0))):
                numbers = draw(generator, picture, colour) / SIDE_PX
                rows.append(f"{class_id} " + " ".join(f"{value:.6f}" for value in numbers))
            cv2.imwrite(str(root / "images" / split / f"{index}.png"), picture)
            (root / "labels" / split / f"{index}.txt").write_text("\n".join(rows))
    path = root / "data.yaml"
    path.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: {{0: red, 1: blue}}\n")
    return path
