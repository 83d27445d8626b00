"""Every example runs as it stands and does what its first line says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def picture(tmp_path: Path, scene: np.ndarray) -> Path:
    (tmp_path / "in").mkdir()
    cv2.imwrite(str(tmp_path / "in/a.png"), scene[:480, :480])
    return tmp_path / "in/a.png"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_has_a_test_and_a_line_in_the_table() -> None:
    text, table = Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f'run("{path.name}"' in text and f"`{path.name}`" in table, path.name


def test_one_picture(shipped_bundle: Path, picture: Path, tmp_path: Path) -> None:
    assert run("one_picture.py", shipped_bundle, picture, tmp_path).startswith("ChainResult(")
    assert json.loads((tmp_path / "objects.json").read_text())["objects"]
    assert cv2.imread(str(tmp_path / "overlay.jpg")).shape == (480, 480, 3)


def test_threads(shipped_bundle: Path, picture: Path) -> None:
    lines = run("threads.py", shipped_bundle, picture, picture).splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and not lines[0].endswith(" 0 objects")


def test_camera(shipped_bundle: Path, scene: np.ndarray, tmp_path: Path) -> None:
    video = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 5, (480, 480))
    for _ in range(3):
        video.write(scene[:480, :480])
    video.release()
    shown = run("camera.py", shipped_bundle, tmp_path / "a.avi", tmp_path / "o.jsonl", 2).splitlines()
    frames = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [frame["frame"] for frame in frames] == [0, 1] and len(shown) == 2
    assert all(len(frame["boxes"]) == len(frame["names"]) > 0 for frame in frames)


def test_given_boxes(shipped_bundle: Path, picture: Path, tmp_path: Path) -> None:
    assert "predicted IoU" in run("given_boxes.py", shipped_bundle, picture, tmp_path / "o.json")
    (found,) = json.loads((tmp_path / "o.json").read_text())["objects"]
    assert found["class_id"] == 2


def test_folder_to_coco(shipped_bundle: Path, picture: Path, tmp_path: Path) -> None:
    assert run("folder_to_coco.py", shipped_bundle, picture.parent, tmp_path / "out").startswith("a run ")
    assert json.loads((tmp_path / "out/coco.json").read_text())["annotations"]


def test_archive_with_ray(shipped_bundle: Path, picture: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (250 MB, not part of the extra dev)")
    pytest.importorskip("pandas", reason="Ray Data needs pandas and pyarrow: pip install 'edgekd[ray]'")
    text = run("archive_with_ray.py", shipped_bundle, picture.parent, tmp_path / "o.jsonl", 1)
    assert text.startswith("measured: ") and "calculated, not measured: " in text
    (line,) = (tmp_path / "o.jsonl").read_text().splitlines()
    assert json.loads(line)["objects"]
