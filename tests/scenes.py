"""Drawn aerial pictures: material for tests and for the shipped demonstration picture, owned by nobody else.

`python tests/scenes.py OUT.jpg` writes the demonstration picture. Objects are airplanes, storage tanks, tennis courts,
a ground track field and baseball diamonds on grass and concrete, with shadows and sensor noise.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import cv2
import numpy as np

SUPERSAMPLING = 4
SHADOW = (3.0, 4.0)
"""Displacement of shadows in pixels: the sun stands in the north-west."""

_PLANE = np.array(
    [(0, -50), (3, -46), (4.5, -38), (5, -14), (46, 12), (46, 18), (5, 6), (4, 32), (17, 43), (17, 47), (0, 43)], float
)


@dataclass
class Canvas:
    """A picture that is drawn larger than it is kept, so that edges are smooth: (H, W, 3) float BGR."""

    pixels: np.ndarray
    generator: np.random.Generator

    def fill(self, points: np.ndarray, colour: tuple[int, int, int]) -> None:
        scaled = np.round(np.asarray(points, float) * SUPERSAMPLING).astype(np.int32)
        cv2.fillPoly(self.pixels, [scaled], colour)

    def stroke(self, points: np.ndarray, colour: tuple[int, int, int], width_px: float, closed: bool = True) -> None:
        scaled = np.round(np.asarray(points, float) * SUPERSAMPLING).astype(np.int32)
        cv2.polylines(self.pixels, [scaled], closed, colour, max(1, round(width_px * SUPERSAMPLING)))

    def shade(self, points: np.ndarray, strength: float = 0.5) -> None:
        mask = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.fillPoly(mask, [np.round((points + np.array(SHADOW)) * SUPERSAMPLING).astype(np.int32)], 1)
        self.pixels[mask > 0] *= strength


def turn(points: np.ndarray, degrees: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """Rotate, scale and move points (n, 2)."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return points @ matrix * scale + np.array(centre)


def rectangle(width: float, height: float) -> np.ndarray:
    """Corners (4, 2) of a rectangle around the origin."""
    return np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.array([width, height]) / 2


def ellipse(width: float, height: float, start: float = 0.0, stop: float = 360.0) -> np.ndarray:
    """Points (64, 2) of an ellipse's arc around the origin, degrees."""
    t = np.deg2rad(np.linspace(start, stop, 64))
    return np.stack([np.cos(t) * width / 2, np.sin(t) * height / 2], 1)


def ground(height: int, width: int, generator: np.random.Generator) -> np.ndarray:
    """Grass with patches of several sizes: (height * s, width * s, 3) float32 BGR."""
    size = (width * SUPERSAMPLING, height * SUPERSAMPLING)
    texture = np.zeros((size[1], size[0]), np.float32)
    for cells, strength in ((6, 14.0), (24, 9.0), (90, 7.0), (260, 6.0)):
        noise = generator.standard_normal((cells * height // width + 1, cells), np.float32)
        texture += cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC) * strength
    return np.array([62, 96, 84], np.float32) + texture[:, :, None] * np.array([0.8, 1.0, 0.9], np.float32)


def airplane(canvas: Canvas, centre: tuple[float, float], span_px: float, degrees: float) -> None:
    """A jet seen from above; the nose points north at 0 degrees."""
    outline = np.concatenate([_PLANE, (_PLANE * np.array([-1, 1]))[::-1]])
    scale = span_px / 92
    body = turn(outline, degrees, scale, centre)
    canvas.shade(body, 0.55)
    canvas.fill(body, (236, 238, 240))
    for side in (-1, 1):
        for along in (16, 29):
            engine = turn(rectangle(4.5, 11) + np.array([side * along, -2 + along * 0.28]), degrees, scale, centre)
            canvas.fill(engine, (168, 166, 164))
    canvas.fill(turn(rectangle(2.2, 62) + np.array([0, 2]), degrees, scale, centre), (250, 250, 250))
    canvas.fill(turn(rectangle(3, 14) + np.array([0, 38]), degrees, scale, centre), (150, 80, 40))


def storage_tank(canvas: Canvas, centre: tuple[float, float], diameter_px: float) -> None:
    """A white tank with a rim, a roof seam and a shadow."""
    base = turn(ellipse(1, 1), 0, diameter_px, centre)
    canvas.shade(base + np.array(SHADOW), 0.45)
    canvas.shade(base, 0.45)
    canvas.fill(base, (206, 210, 212))
    canvas.fill(turn(ellipse(0.92, 0.92), 0, diameter_px, centre), (232, 234, 236))
    canvas.stroke(turn(ellipse(0.45, 0.45), 0, diameter_px, centre), (206, 208, 210), 0.8)
    canvas.stroke(turn(np.array([(0, -0.5), (0, 0.0)]), 35, diameter_px, centre), (180, 182, 184), 1.0, closed=False)


def tennis_court(canvas: Canvas, centre: tuple[float, float], length_px: float, degrees: float) -> None:
    """A blue court on a green surround, with its white lines; `length_px` is the surround's."""
    scale = length_px / 36.6
    canvas.fill(turn(rectangle(18.3, 36.6), degrees, scale, centre), (88, 118, 72))
    canvas.fill(turn(rectangle(10.97, 23.77), degrees, scale, centre), (138, 92, 62))
    line = (222, 224, 224)
    for width, height in ((10.97, 23.77), (8.23, 23.77), (8.23, 12.8)):
        canvas.stroke(turn(rectangle(width, height), degrees, scale, centre), line, 0.9)
    canvas.stroke(turn(np.array([(0, -6.4), (0, 6.4)]), degrees, scale, centre), line, 0.9, closed=False)
    canvas.stroke(turn(np.array([(-6, 0), (6, 0)]), degrees, scale, centre), (70, 70, 70), 1.0, closed=False)


def track_field(canvas: Canvas, centre: tuple[float, float], length_px: float, degrees: float) -> None:
    """A red running track around a striped lawn."""
    scale = length_px / 176

    def stadium(radius: float) -> np.ndarray:
        arc = ellipse(2 * radius, 2 * radius, -90, 90)
        return turn(np.concatenate([arc + np.array([50, 0]), -arc - np.array([50, 0])]), degrees, scale, centre)

    canvas.fill(stadium(38), (74, 88, 168))
    for lane in range(1, 6):
        canvas.stroke(stadium(38 - lane * 1.7), (150, 160, 205), 0.5)
    canvas.fill(stadium(28), (66, 118, 82))
    for index in range(8):
        if index % 2:
            stripe = rectangle(12, 46) + np.array([-42 + index * 12, 0])
            canvas.fill(turn(stripe, degrees, scale, centre), (72, 130, 90))
    canvas.stroke(turn(rectangle(96, 46), degrees, scale, centre), (214, 220, 216), 0.8)
    canvas.stroke(turn(ellipse(16, 16), degrees, scale, centre), (214, 220, 216), 0.8)


def baseball_diamond(canvas: Canvas, centre: tuple[float, float], size_px: float, degrees: float) -> None:
    """A sand fan with its grass square and mound."""
    fan = np.concatenate([[(0, 0.5)], ellipse(1.25, 1.25, 225, 315) * 0.85 + np.array([0, 0.42])])
    sand = (128, 164, 190)
    canvas.fill(turn(fan, degrees, size_px, centre), sand)
    canvas.fill(turn(ellipse(0.24, 0.24) + np.array([0, 0.42]), degrees, size_px, centre), sand)
    square = turn(rectangle(0.36, 0.36), 45, 1.0, (0, 0.1))
    canvas.fill(turn(square, degrees, size_px, centre), (66, 122, 92))
    canvas.fill(turn(ellipse(0.08, 0.08) + np.array([0, 0.1]), degrees, size_px, centre), sand)


def finish(canvas: Canvas) -> np.ndarray:
    """Average down, blur as a lens does, add sensor noise: (H, W, 3) uint8 BGR."""
    height, width = (side // SUPERSAMPLING for side in canvas.pixels.shape[:2])
    small = cv2.resize(canvas.pixels, (width, height), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.6) + canvas.generator.normal(0, 3.0, small.shape)
    return np.clip(small, 0, 255).astype(np.uint8)


def blank(height: int, width: int, seed: int = 0) -> Canvas:
    """A lawn to draw on."""
    generator = np.random.default_rng(seed)
    return Canvas(ground(height, width, generator), generator)


def demo_scene() -> np.ndarray:
    """The demonstration picture: (640, 960, 3) uint8 BGR."""
    canvas = blank(640, 960, seed=4)
    concrete, road = (150, 154, 156), (112, 114, 116)
    canvas.fill(np.array([(0, 0), (560, 0), (520, 250), (0, 250)]), concrete)
    for x in range(40, 540, 62):
        canvas.stroke(np.array([(x, 0), (x - 12, 250)]), (140, 144, 146), 1, closed=False)
    canvas.fill(np.array([(0, 284), (960, 262), (960, 284), (0, 306)]), road)
    canvas.stroke(np.array([(0, 295), (960, 273)]), (200, 204, 204), 1.0, closed=False)
    canvas.fill(np.array([(590, 0), (618, 0), (590, 270), (562, 272)]), road)
    for centre, span, degrees in (
        ((85, 70), 96, 180), ((205, 75), 104, 180), ((330, 72), 98, 180), ((445, 80), 92, 172),
        ((120, 190), 88, 20), ((330, 195), 84, 75),
    ):  # fmt: skip
        airplane(canvas, centre, span, degrees)
    canvas.fill(rectangle(300, 210) + np.array([790, 125]), (134, 146, 152))
    for row in range(2):
        for column in range(4):
            storage_tank(canvas, (690 + column * 66, 80 + row * 84), 50)
    for column in range(3):
        tennis_court(canvas, (90 + column * 84, 420), 116, 4)
    track_field(canvas, (560, 450), 250, 12)
    baseball_diamond(canvas, (830, 400), 120, 20)
    baseball_diamond(canvas, (840, 560), 110, -100)
    for _ in range(90):
        x, y = canvas.generator.uniform(0, 960), canvas.generator.uniform(540, 640)
        if not (420 < x < 700 or 770 < x < 910):
            size = canvas.generator.uniform(9, 22)
            crown = turn(ellipse(size, size), 0, 1, (x, y))
            canvas.shade(crown, 0.6)
            canvas.fill(crown, tuple(int(v) for v in canvas.generator.uniform((30, 55, 40), (52, 84, 62))))
    return finish(canvas)


if __name__ == "__main__":
    cv2.imwrite(sys.argv[1], demo_scene(), [cv2.IMWRITE_JPEG_QUALITY, 92])
