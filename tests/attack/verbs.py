"""The commands that a fault strikes: what each reads and writes, and how a whole result is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from kind_models import write_crop_models  # noqa: E402
from targets import picture_bytes  # noqa: E402


@dataclass(frozen=True)
class Verb:
    """A command that reads `work/in` and writes `work/out`: its words, and how a whole result is known."""

    name: str
    words: Callable[[Path], list[str]]
    whole: Callable[[Path], bool]
    keeps_old: bool = False
    """A second call into the folder of a whole result is refused."""
    replaces: bool = False
    """A whole result stays until the next one takes its place in one step."""
    turns: int = 1
    """How often in a round; cheap commands have more turns than expensive ones."""
    resumes: bool = False
    """The next call goes on with `--resume` where the first has left a state."""

    def again(self, work: Path) -> list[str]:
        """The words of the next call."""
        goes_on = self.resumes and any((work / "out").rglob("resume.pt"))
        return [*self.words(work), *(["--resume"] if goes_on else [])]


def verbs() -> list[Verb]:
    """The commands that write something."""
    return [*_data_verbs(), *_build_verbs(), *_run_verbs(), *_training_verbs()]


def _models(out: Path) -> bool:
    return (out / "models.json").is_file() and len(list(out.glob("*.onnx"))) >= 2


def _bundle(out: Path) -> bool:
    return (out / "manifest.json").is_file() and len(list(out.glob("*.onnx"))) == 2


def _listed(path: Path, key: str) -> int:
    """How many entries a JSON file has below a key; none where there is no file."""
    return len(json.loads(path.read_text())[key]) if path.is_file() else 0


def _json(out: Path) -> bool:
    return out.is_file() and bool(json.loads(out.read_text()))


# fmt: off
def _build_verbs() -> list[Verb]:
    build = ["--backend", "onnxruntime", "--precision", "fp32", "--square"]
    return [
        Verb(
            "build-engine", lambda work: ["build-engine", f"{work}/in/small", *build, "-o", f"{work}/out"],
            _bundle, replaces=True, turns=2,
        ),
        Verb(
            "build-engine --keep",
            lambda work: ["build-engine", f"{work}/in/small", *build, "--keep", "2", "-o", f"{work}/out"],
            _bundle, replaces=True, turns=2,
        ),
        Verb(
            "export", lambda work: ["export", "--segmenter-size", "256", "-o", f"{work}/out"],
            _models, replaces=True, turns=6,
        ),
        Verb(
            "calibrate",
            lambda work: [
                "calibrate", f"{work}/in/small", "--target", "cpu", "--only", "detector", "--method", "minmax",
                "--images", f"{work}/in/pictures", "--count", "1", "-o", f"{work}/out",
            ],
            _models, replaces=True,
        ),
    ]


def _run_verbs() -> list[Verb]:
    return [
        Verb(
            "run",
            lambda work: ["run", f"{work}/in/bundle", f"{work}/in/pictures", "-o", f"{work}/out"],
            lambda out: _listed(out / "results.json", "pictures") == 3, turns=4,
        ),
        Verb(
            "evaluate",
            lambda work: [
                "evaluate", f"{work}/in/bundle", "--data", f"{work}/in/annotations.json", "--limit", "3",
                "--json", f"{work}/out",
            ],
            _json, replaces=True,
        ),
        Verb(
            "bench",
            lambda work: [
                "bench", f"{work}/in/bundle", f"{work}/in/pictures/p0.png", "--min-runs", "3", "--min-seconds", "0",
                "--warm-up", "1", "--json", f"{work}/out",
            ],
            _json, replaces=True,
        ),
        Verb(
            "label",
            lambda work: [
                "label", f"{work}/in/bundle", f"{work}/in/images", "--boxes", f"{work}/in/annotations.json",
                "--drop", "0", "-o", f"{work}/out",
            ],
            lambda out: _listed(out / "annotations.json", "images") > 0 and (out / "report.json").is_file(),
            keeps_old=True,
        ),
    ]


def _data_verbs() -> list[Verb]:
    return [
        Verb(
            "data coco",
            lambda work: ["data", "coco", f"{work}/in/annotations.json", "-o", f"{work}/out"],
            lambda out: (out / "data.yaml").is_file() and len(list(out.rglob("*.txt"))) >= 8, keeps_old=True, turns=6,
        ),
        Verb(
            "data convert",
            lambda work: ["data", "convert", f"{work}/in/annotations.json", "--to", "coco", "-o", f"{work}/out"],
            lambda out: _listed(out / "annotations.json", "images") == 8, keeps_old=True, turns=6,
        ),
    ]


def _training_verbs() -> list[Verb]:
    return [
        Verb(
            "finetune",
            lambda work: [
                "finetune", "--model", "crop", "--size", "S", "--data", f"{work}/in/annotations.json", "--steps", "3",
                "--batch", "2", "--save-every", "1", "--keep", "0", "-o", f"{work}/out",
            ],
            lambda out: (out / "best.pt").is_file(), resumes=True,
        ),
        Verb(
            "distill",
            lambda work: [
                "distill", "--student", f"{work}/in/student.pt", "--data", f"{work}/in/yolo/data.yaml", "--method",
                "none", "--epochs", "2", "--imgsz", "64", "--batch", "4", "-o", f"{work}/out",
            ],
            lambda out: (out / "weights/best.pt").is_file(), resumes=True,
        ),
    ]
# fmt: on


def lay_inputs(folder: Path) -> None:
    """Write everything that the commands read, once."""
    from edgekd.deploy.build import build_bundle
    from edgekd.deploy.build_options import BuildOptions

    (folder / "pictures").mkdir(parents=True)
    (folder / "images").mkdir()
    write_crop_models(folder / "small", detector_px=160)
    options = BuildOptions(backend="onnxruntime", precision="fp32", square=True)
    build_bundle(folder / "small", folder / "bundle", options, lambda line: None)
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
    write_random_student(folder / "student.pt")


def write_random_student(path: Path) -> None:
    """A YOLO11n of random weights for 80 classes, as the weights of COCO are."""
    import torch
    from ultralytics.nn.tasks import DetectionModel

    from edgekd.train import checkpoint

    torch.manual_seed(0)
    model = DetectionModel("yolo11n.yaml", nc=80, verbose=False)
    checkpoint.write_atomically(path, checkpoint.plain_checkpoint(model, {}, {}))
