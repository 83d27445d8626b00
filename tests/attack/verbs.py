"""The commands that a fault strikes: what each reads and writes, and how a whole result is known."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from small_models import write_small_models  # noqa: E402
from targets import picture_bytes  # noqa: E402


@dataclass(frozen=True)
class Verb:
    """A command that reads `work/in` and writes `work/out`: its words, and how a whole result is known."""

    name: str
    words: Callable[[Path], list[str]]
    whole: Callable[[Path], bool]
    keeps_old: bool = False
    """A second call into the folder of a whole result is refused."""
    resumes: bool = False
    """The next call goes on with `--resume` where the first has left a state."""

    def again(self, work: Path) -> list[str]:
        """The words of the next call."""
        goes_on = self.resumes and (work / "out/resume.pt").is_file()
        return [*self.words(work), *(["--resume"] if goes_on else [])]


def verbs() -> list[Verb]:
    """The commands that write something."""
    # fmt: off
    return [
        Verb(
            "build-engine",
            lambda work: ["build-engine", str(work / "in/models"), "--backend", "onnxruntime", "-o", str(work / "out")],
            lambda out: (out / "manifest.json").is_file() and len(list(out.glob("*.onnx"))) == 3,
        ),
        Verb(
            "run",
            lambda work: ["run", str(work / "in/bundle"), str(work / "in/pictures"), "-o", str(work / "out")],
            lambda out: len(json.loads((out / "results.json").read_text())["pictures"]) == 3,
        ),
        Verb(
            "data coco",
            lambda work: ["data", "coco", str(work / "in/annotations.json"), "-o", str(work / "out")],
            lambda out: (out / "data.yaml").is_file() and len(list(out.rglob("*.txt"))) >= 8,
            keeps_old=True,
        ),
        Verb(
            "data convert",
            lambda work: ["data", "convert", f"{work}/in/annotations.json", "--to", "coco", "-o", f"{work}/out"],
            lambda out: len(list(out.rglob("*.json"))) >= 1,
            keeps_old=True,
        ),
        Verb(
            "label",
            lambda work: [
                "label", f"{work}/in/bundle", f"{work}/in/images", "--boxes", f"{work}/in/annotations.json",
                "--drop", "0", "-o", f"{work}/out",
            ],
            lambda out: len(list(out.rglob("*.json"))) >= 1,
            keeps_old=True,
        ),
        Verb(
            "finetune",
            lambda work: [
                "finetune", "--model", "crop", "--size", "S", "--data", f"{work}/in/annotations.json", "--steps", "6",
                "--batch", "2", "--save-every", "1", "--keep", "0", "-o", f"{work}/out",
            ],
            lambda out: (out / "best.pt").is_file(),
            resumes=True,
        ),
        Verb(
            "distill",
            lambda work: [
                "distill", "--student", "yolo11n.yaml", "--data", f"{work}/in/yolo/data.yaml", "--method", "none",
                "--epochs", "2", "--imgsz", "64", "--batch", "4", "-o", f"{work}/out",
            ],
            lambda out: (out / "best.pt").is_file(),
            resumes=True,
        ),
        Verb(
            "export",
            lambda work: ["export", "--detector-size", "64", "--segmenter-size", "256", "-o", f"{work}/out"],
            lambda out: (out / "models.json").is_file() and len(list(out.glob("*.onnx"))) == 3,
        ),
        Verb(
            "calibrate",
            lambda work: ["calibrate", f"{work}/in/small", "--images", f"{work}/in/pictures", "-o", f"{work}/out"],
            lambda out: (out / "models.json").is_file() and len(list(out.glob("*.onnx"))) == 3,
        ),
    ]


def lay_inputs(folder: Path) -> None:
    """Write everything that the commands read, once."""
    from edgekd.deploy.build import build_bundle
    from edgekd.deploy.build_options import BuildOptions
    from edgekd.package_files import default_models

    (folder / "pictures").mkdir(parents=True)
    (folder / "images").mkdir()
    shutil.copytree(default_models(), folder / "models")
    options = BuildOptions(backend="onnxruntime", precision="fp32", encoder_px=(256, 256))
    build_bundle(default_models(), folder / "bundle", options, lambda line: None)
    for index in range(3):
        (folder / f"pictures/p{index}.png").write_bytes(picture_bytes(side_px=64 + index))
    images, annotations = [], []
    for index in range(8):
        (folder / f"images/i{index}.png").write_bytes(picture_bytes(side_px=64))
        images.append({"id": index, "file_name": f"i{index}.png", "width": 64, "height": 64})
        box = {"bbox": [8, 8, 20, 20], "area": 400, "iscrowd": 0, "segmentation": [[8, 8, 28, 8, 28, 28, 8, 28]]}
        annotations.append({"id": index, "image_id": index, "category_id": 1, **box})
    labels = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "ship"}]}
    (folder / "annotations.json").write_text(json.dumps(labels))
    convert = ["data", "coco", str(folder / "annotations.json"), "-o", str(folder / "yolo")]
    subprocess.run([sys.executable, "-m", "edgekd.cli.main", *convert], check=True, capture_output=True)
    write_small_models(folder / "small")
