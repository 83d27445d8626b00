"""Every kind of picture file becomes (H, W, 3) uint8, and every broken one a sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekd.errors import InputError
from edgekd.runtime.sources import expand, frames, read_picture


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm"])
def test_lossless_files_are_read_as_they_are(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    cv2.imwrite(str(path), picture)
    np.testing.assert_array_equal(read_picture(path), picture)


def test_grey_alpha_and_sixteen_bits(tmp_path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), picture[:, :, 0])
    grey = read_picture(tmp_path / "grey.png")
    np.testing.assert_array_equal(grey, np.repeat(picture[:, :, :1], 3, 2))
    cv2.imwrite(str(tmp_path / "rgba.png"), np.dstack([picture, picture[:, :, :1]]))
    assert read_picture(tmp_path / "rgba.png").shape == (40, 60, 3)
    eleven_bits = picture.astype(np.uint16) * 8
    eleven_bits[0, 0] = 2047
    cv2.imwrite(str(tmp_path / "deep.png"), eleven_bits)
    np.testing.assert_array_equal(read_picture(tmp_path / "deep.png")[1:], picture[1:])


def test_float_pictures_are_scaled_and_nan_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    values = (picture / 255).astype(np.float32)
    cv2.imwrite(str(tmp_path / "float.tif"), values)
    assert np.abs(read_picture(tmp_path / "float.tif").astype(int) - picture).max() <= 1
    values[3, 3] = np.nan
    cv2.imwrite(str(tmp_path / "nan.tif"), values)
    with pytest.raises(InputError, match="not finite"):
        read_picture(tmp_path / "nan.tif")


@pytest.mark.parametrize("size", [(1, 1), (30, 20_000)])
def test_extreme_sizes_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((*size, 3), np.uint8))
    assert read_picture(tmp_path / "a.png").shape == (*size, 3)


def test_broken_files_are_one_sentence(tmp_path: Path, picture: np.ndarray) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.png").write_text("not a picture")
    whole = cv2.imencode(".jpg", picture)[1].tobytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name, words in (
        ("empty.jpg", "is empty"),
        ("text.png", "not a picture"),
        ("cut.jpg", "truncated"),
        ("no.png", "exist"),
    ):
        with pytest.raises(InputError, match=words) as caught:
            read_picture(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_folders_and_videos(tmp_path: Path, picture: np.ndarray) -> None:
    for name in ("b.png", "a.png", "notes.txt"):
        (tmp_path / name).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    assert [path.name for path in expand([tmp_path])] == ["a.png", "b.png"]
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (60, 40))
    for _ in range(3):
        writer.write(picture)
    writer.release()
    assert [frame.index for frame in frames(tmp_path / "v.avi")] == [0, 1, 2]


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no pictures"):
        expand([tmp_path])
    with pytest.raises(InputError, match="does not exist"):
        expand([tmp_path / "missing"])
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(InputError, match="no video frame"):
        list(frames(tmp_path / "v.mp4"))
