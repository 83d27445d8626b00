"""`edgekd data` and `edgekd distill` as they are typed: results on stdout, one sentence for a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from called import call_main
from typer.testing import CliRunner

from edgekd.cli.main import app

ROOT = Path(__file__).parents[2]


def edgekd(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekd.cli.main", *[str(word) for word in words]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)


@pytest.fixture
def coco_file(tmp_path) -> Path:
    """Four pictures of 64 px with one red square each."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for index in range(4):
        picture = np.full((64, 64, 3), 40, np.uint8)
        picture[16:40, 8 + index : 32 + index] = (0, 0, 255)
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), picture)
        images.append({"id": index, "file_name": f"{index}.png", "width": 64, "height": 64})
        annotations.append({"id": index, "image_id": index, "category_id": 1, "bbox": [8 + index, 16, 24, 24]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    return tmp_path / "a.json"


def test_from_coco_to_a_plain_checkpoint(coco_file, tmp_path):
    made = call_main("data", "coco", coco_file, "-o", tmp_path / "set", "--val-fraction", "0.5")
    assert made.returncode == 0, made.stderr
    assert "train: 2 pictures (0 empty), square 2" in made.stdout and "dropped, under a pixel: 0" in made.stderr
    data, run = tmp_path / "set" / "data.yaml", tmp_path / "run"
    words = ["--student", "yolo11n.yaml", "--method", "none", "--epochs", 1, "--imgsz", 64, "--batch", 2]
    words += ["--threads", 1]
    trained = edgekd("distill", "--data", data, "-o", run, *words)
    assert trained.returncode == 0, trained.stderr[-2000:]
    assert trained.stdout.splitlines()[-1].endswith("best.pt: a plain Ultralytics checkpoint")
    assert all(
        line.split(":")[0] in ("precision", "recall", "mAP50", "mAP50-95") for line in trained.stdout.splitlines()[:-1]
    )
    stripped = call_main("distill", "strip", run / "weights" / "resume.pt", "-o", tmp_path / "plain.pt")
    assert stripped.returncode == 0 and stripped.stdout.endswith("a plain DetectionModel\n"), stripped.stderr
    again = call_main("distill", "--data", data, "-o", run, *words)
    assert again.returncode == 1 and again.stderr.splitlines()[-1].startswith("edgekd: ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["distill"], "give --data FILE.yaml and -o FOLDER"),
        (
            ["distill", "--data", "absent.yaml", "-o", "r", "--student", "yolo11n.yaml", "--method", "none"],
            "does not exist",
        ),
        (["distill", "--data", "d.yaml", "-o", "r", "--student", "yolo11n.yaml"], "give a --teacher"),
        (["distill", "strip", "absent.pt", "-o", "plain.pt"], "absent.pt does not exist"),
        (["data", "coco", "absent.json", "-o", "r"], "absent.json does not exist"),
        (["data", "nwpu", "absent", "-o", "r"], "annotations.json does not exist"),
        (["data", "dior", "absent", "-o", "r"], "give the folder of DIOR"),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of libraries that are imported here, whose process this is not
def test_a_mistake_is_one_sentence(tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    done = call_main(*words)
    assert done.returncode == 1 and done.stdout == ""
    assert sentence in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("words", [("--method", "magic"), ("--precision", "int3")])
def test_a_word_that_is_not_offered_is_a_usage_error(words: tuple[str, str]) -> None:
    done = CliRunner().invoke(app, ["distill", "--data", "d.yaml", "-o", "r", *words])
    assert done.exit_code == 2 and words[1] in done.stderr


def test_help_loads_nothing_heavy():
    script = (
        "import sys; from edgekd.cli import data, distill;"
        "heavy = {'torch', 'ultralytics', 'timm', 'cv2', 'numpy'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_a_recipe_is_explained_printed_changed_and_checked(tmp_path: Path) -> None:
    listed = call_main("distill", "recipe")
    assert "small-set" in listed.stdout and "schedule.epochs" in listed.stdout

    written = call_main("distill", "recipe", "small-set", "-o", tmp_path / "mine.json")
    assert f"--recipe {tmp_path / 'mine.json'}" in written.stdout.replace("\n", "")
    content = json.loads((tmp_path / "mine.json").read_text())
    assert content["schedule"]["imgsz"] == 512

    (tmp_path / "mine.json").write_text(json.dumps(content | {"target_share": 0.3}))
    assert json.loads(call_main("distill", "recipe", tmp_path / "mine.json").stdout)["target_share"] == 0.3

    refused = call_main("distill", "recipe", "smal-set")
    assert refused.returncode == 1 and "default, small-set, random-weights" in refused.stderr
