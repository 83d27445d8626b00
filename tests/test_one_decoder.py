"""One decoder of pictures: whatever the file holds, training, calibration, evaluation and a run see the same array.

Each kind of file of `docs/pictures.md` is here; the C library is given these pixels (`tests/capi/test_parity.py`).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edgekd.data.read import read_labels, read_pixels
from edgekd.deploy.stage_inputs import StageInputs
from edgekd.errors import DataError, EdgekdError, InputError
from edgekd.measure.accuracy import EvaluateOptions, evaluate_chain
from edgekd.model_set import read_model_set
from edgekd.package_files import default_models
from edgekd.runtime.preprocess import preprocess
from edgekd.runtime.sources import frames, read_picture
from edgekd.types import Detections

RNG = np.random.default_rng(3)
RGB = RNG.integers(0, 256, (24, 32, 3), np.uint8)
SMOOTH = np.dstack([*np.meshgrid(np.arange(32) * 8, np.arange(24) * 10), np.full((24, 32), 99)]).astype(np.uint8)
ALPHA = RNG.integers(0, 256, (24, 32, 1), np.uint8)
DEEP = RNG.integers(0, 2**11, (24, 32, 3)).astype(np.uint16)
DEEP[0, 0] = 2047


def save(mode: str, name: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        source = np.concatenate([RGB, ALPHA], 2) if mode == "RGBA" else SMOOTH if mode == "CMYK" else RGB
        image = Image.fromarray(source).convert(mode)
        image.save(folder / name, **options)
        return folder / name

    return write


def turned(folder: Path) -> Path:
    image = Image.fromarray(SMOOTH)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(folder / "a.jpg", exif=exif, quality=100, subsampling=0)
    return folder / "a.jpg"


def written(name: str, picture: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        cv2.imwrite(str(folder / name), picture)
        return folder / name

    return write


BGR = RGB[:, :, ::-1]
GREY = np.repeat(np.array(Image.fromarray(RGB).convert("L"))[:, :, None], 3, 2)
PALETTE = np.array(Image.fromarray(RGB).convert("P").convert("RGB"))[:, :, ::-1]
FILES: dict[str, tuple[Callable[[Path], Path], np.ndarray, int]] = {
    "colour": (save("RGB", "a.png"), BGR, 0),
    "grey": (save("L", "a.png"), GREY, 0),
    "grey with alpha": (save("LA", "a.png"), GREY, 0),
    "palette": (save("P", "a.png"), PALETTE, 0),
    "alpha": (save("RGBA", "a.png"), BGR, 0),
    "alpha in a TIFF": (save("RGBA", "a.tif"), np.round(BGR * (ALPHA / 255.0)).astype(np.uint8), 0),
    "CMYK": (save("CMYK", "a.jpg", quality=100), SMOOTH[:, :, ::-1], 3),
    "turned by EXIF": (turned, np.rot90(SMOOTH[:, :, ::-1], -1), 3),
    "11 bits": (written("a.png", DEEP), (DEEP >> 3).astype(np.uint8), 0),
    "16 bits": (written("a.tif", BGR.astype(np.uint16) * 257), BGR, 0),
    "16 bits of alpha": (written("a.png", np.dstack([BGR, ALPHA]).astype(np.uint16) * 257), BGR, 0),
    "float": (written("a.tif", (BGR / 255).astype(np.float32)), BGR, 1),
}


@pytest.fixture(params=FILES, ids=str)
def known(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, np.ndarray, int]:
    write, expected, tolerance = FILES[request.param]
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    path = write(tmp_path / "images")
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n0 .3 .3 .2 .2\n")
    return path, expected, tolerance


def test_every_reader_sees_the_same_pixels(known: tuple[Path, np.ndarray, int]) -> None:
    path, expected, tolerance = known
    pixels = read_picture(path)
    assert pixels.shape == expected.shape
    assert np.abs(pixels.astype(int) - expected).max() <= tolerance
    folder = path.parent.parent
    labels = read_labels(folder)
    # a run
    (frame,) = frames(path)
    np.testing.assert_array_equal(frame.picture, pixels)
    # evaluation and gates
    np.testing.assert_array_equal(_seen_in_evaluation(labels), pixels)
    # calibration
    blob, _ = preprocess(pixels, read_model_set(default_models()).pipeline.detector_input)
    (feed,) = _seen_in_calibration(path)
    np.testing.assert_array_equal(next(iter(feed.values())), blob)
    # distillation
    np.testing.assert_array_equal(_seen_in_distillation(labels), pixels)


def test_finetuning_sees_the_same_pixels(known: tuple[Path, np.ndarray, int]) -> None:
    crops = pytest.importorskip("edgekd.train.finetune.crops")
    path, _, _ = known
    (path.parent.parent / "labels" / "a.txt").write_text("0 .1 .1 .9 .1 .9 .9")
    (picture,) = read_labels(path.parent.parent).for_masks().pictures
    frame = crops.whole_frame(picture, max(picture.size_px), 1)
    np.testing.assert_array_equal(frame.image, crops.normalise(read_picture(path)))


def _seen_in_calibration(path: Path) -> list[dict[str, Any]]:
    models = default_models()
    return list(StageInputs(models, read_model_set(models), "detector", [path]).feeds())


def _seen_in_evaluation(labels: Any) -> np.ndarray:
    seen: list[np.ndarray] = []

    def detect(pixels: np.ndarray, _options: object) -> Detections:
        seen.append(pixels)
        return Detections.from_boxes(np.zeros((0, 4), np.float32))

    upright = SimpleNamespace(is_oriented=False)
    manifest = SimpleNamespace(pipeline=SimpleNamespace(class_names=("0",), head=upright))
    evaluate_chain(SimpleNamespace(manifest=manifest, detect=detect), labels, EvaluateOptions(segmenter=False))
    return seen[0]


def _seen_in_distillation(labels: Any) -> np.ndarray:
    dataset = pytest.importorskip("edgekd.train.distill.dataset")
    from ultralytics.cfg import get_cfg

    side = max(labels.pictures[0].size_px)
    settings = get_cfg(overrides={"imgsz": side, "task": "detect"})
    data = {"names": {0: "0"}, "nc": 1, "channels": 3}
    return np.asarray(dataset.LabelledDataset(labels, settings, data, False, 1, 32).load_image(0)[0])


def cut(name: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        Image.fromarray(RGB).save(path, name)
        path.write_bytes(path.read_bytes()[:-200])

    return spoil


def bomb(path: Path) -> None:
    data = bytearray(cv2.imencode(".png", RGB)[1].tobytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)


def not_finite(path: Path) -> None:
    picture = np.ones((24, 32, 3), np.float32)
    picture[3, 4] = np.nan
    path.write_bytes(cv2.imencode(".tiff", picture)[1].tobytes())


BROKEN: dict[str, Callable[[Path], None]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("a picture"),
    "truncated JPEG": cut("JPEG"),
    "truncated PNG": cut("PNG"),
    "PNG bomb": bomb,
    "float TIFF with NaN": not_finite,
    "pipe": lambda path: (path.unlink(), os.mkfifo(path))[0],
    "folder": lambda path: (path.unlink(), path.mkdir())[0],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_every_reader_refuses_what_is_broken(tmp_path: Path, kind: str) -> None:
    """One sentence from each, no traceback, and a pipe does not hang."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    path = tmp_path / "images" / "a.jpg"
    Image.fromarray(RGB).save(path)
    (tmp_path / "labels" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    labels = read_labels(tmp_path)
    BROKEN[kind](path)
    readers: list[Callable[[], object]] = [
        lambda: read_picture(path),
        lambda: list(frames(path)),
        lambda: read_pixels(labels.pictures[0]),
        lambda: _seen_in_evaluation(labels),
        lambda: _seen_in_distillation(labels),
        lambda: _seen_in_calibration(path),
        lambda: read_labels(tmp_path),
    ]
    for reader in readers:
        with pytest.raises((InputError, DataError)) as caught:
            reader()
        assert isinstance(caught.value, EdgekdError) and "\n" not in str(caught.value)
