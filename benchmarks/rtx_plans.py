"""Plans of TensorRT-RTX for five generations of GPUs, built on a machine with none: how large, and how much memory.

    python benchmarks/rtx_plans.py [--sm 75,80,86,89,120] [--stages detector,encoder] [--models DIR] [--out FILE]

Every stage of the default models (1024 px, fp16), the shipped crop segmenter, and YOLO11n-seg at 640 px are built as
`edgekd build-engine` builds them. YOLO11n-seg is untrained: it does not ship, and its size and its memory come from its
architecture; the extra `build` is needed for it. The activation memory is what the builder says in its log. A plan or
an activation above its bound is an error, exit code 1: a change in the export has made something large. Every finished
plan is written to the result file at once, and the command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from result_file import result_path

from edgekd.deploy import tensorrt_build
from edgekd.deploy.build_options import BuildOptions, EngineJob
from edgekd.deploy.input_sizes import shapes_of, sized
from edgekd.deploy.tensorrt_build import PlanOptions, build_plan
from edgekd.environment import describe_machine
from edgekd.files import write_text
from edgekd.graphs import StageName
from edgekd.model_set import Source, read_model_set
from edgekd.package_files import CROP_MODELS, default_models
from edgekd.runtime.tensorrt_library import library_version

# Most megabytes of a plan and of its activations. For compute capability 7.5 the encoder's plan carries kernels that
# newer cards compile themselves, and its attention needs more memory.
STAGES = ("detector", "encoder", "decoder", "segmenter", "yolo-seg")
PLAN_MB = {"detector": 40, "encoder": 60, "decoder": 40, "segmenter": 8, "yolo-seg": 40}
OLD_ENCODER_MB = {"plan_mb": 600, "activation_mb": 400}
ACTIVATION_MB = {"detector": 60, "encoder": 120, "decoder": 300, "segmenter": 60, "yolo-seg": 30}
CROP_BOXES = 16


def main(words: list[str] | None = None) -> int:
    """Build what is not built yet, and write the result file after each plan."""
    arguments = parse(words)
    out = arguments.output or result_path("rtx_plans")
    settings = {"precision": "fp16", "crop_boxes": CROP_BOXES, "models": str(arguments.models or "shipped")}
    bounds = {"plan_mb": PLAN_MB, "activation_mb": ACTIVATION_MB, "encoder_for_sm_75": OLD_ENCODER_MB}
    head = {"theme": "rtx_plans", "machine": describe_machine().model_dump(), "tensorrt_rtx": library_version(True)}
    result: dict[str, Any] = json.loads(json.dumps(head | {"settings": settings, "bounds": bounds, "plans": {}}))
    if out.is_file():
        old = json.loads(out.read_text())
        if (old["tensorrt_rtx"], old["settings"]) == (result["tensorrt_rtx"], result["settings"]):
            result["plans"] = old["plans"]
    with tempfile.TemporaryDirectory(prefix="rtx-plans-") as room:
        for sm in arguments.sm.split(","):
            rows = result["plans"].setdefault(sm, {})
            for name in arguments.stages.split(","):
                if name not in rows:
                    rows[name] = measured(name, arguments.models or default_models(), int(sm), Path(room))
                    write_text(out, json.dumps(result, indent=1) + "\n")
                    print(f"sm_{sm} {name}: {rows[name]}", file=sys.stderr, flush=True)
    write_text(out, json.dumps(result, indent=1) + "\n")
    failures = [words for sm, rows in result["plans"].items() for words in too_large(int(sm), rows)]
    for line in failures:
        print(line, file=sys.stderr)
    print(out)
    return 1 if failures else 0


def parse(words: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sm", default="75,80,86,89,120", help="compute capabilities without a dot")
    parser.add_argument("--stages", default=",".join(STAGES), help=f"of {', '.join(STAGES)}")
    parser.add_argument("--models", type=Path, default=None, help="what edgekd export wrote; default: the shipped")
    parser.add_argument("-o", "--output", "--out", type=Path, default=None, help="the result file")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.stages.split(",")) - set(STAGES):
        parser.error(f"no stage is named {min(unknown)}, expected some of {', '.join(STAGES)}")
    return arguments


def measured(name: str, models: Path, sm: int, room: Path) -> dict[str, float]:
    """Build one plan in a folder; returns its megabytes, those of its activations, and the seconds of a processor."""
    if name == "yolo-seg":
        models = untrained_yolo_seg(room)
    start = time.process_time()
    with Listener() as said:
        n_bytes = bytes_of_plan(name, models, f"{sm // 10}.{sm % 10}", room)
        (activation,) = said.activations
    seconds = round(time.process_time() - start, 1)
    return {"plan_mb": n_bytes / 1e6, "activation_mb": activation / 1e6, "cpu_seconds": seconds}


def bytes_of_plan(name: str, models: Path, capability: str, room: Path) -> int:
    """Build the plan of a stage for one compute capability and return how large it is."""
    if name == "segmenter":
        side = side_of_crops()
        profiles = {"crops": tuple((n, side, side, 3) for n in (1, CROP_BOXES, CROP_BOXES))}
        options = PlanOptions(True, capability, "fp16", profiles)  # type: ignore[arg-type]
        return len(build_plan(CROP_MODELS / "segmenter.onnx", options))
    stage: StageName = "detector" if name in ("detector", "yolo-seg") else "encoder" if name == "encoder" else "decoder"
    model_set = read_model_set(models)
    shapes = shapes_of(sized(model_set, None, None, one_size=True))
    wanted = BuildOptions(backend="tensorrt-rtx", precision="fp16", compute_capability=capability)
    graph, target = models / model_set.stages[stage].file, room / stage
    job = EngineJob(graph, shapes.full[stage], shapes.built[stage], target, "fp16", (), wanted)
    return tensorrt_build.build(job)[0].stat().st_size


def untrained_yolo_seg(room: Path) -> Path:
    """Export YOLO11n-seg with ten classes and the weights that it starts with, once per folder."""
    if (room / "yolo-seg").is_dir():
        return room / "yolo-seg"
    import torch
    from ultralytics.nn.tasks import SegmentationModel

    from edgekd.deploy.export import ExportOptions, export_networks
    from edgekd.models.yolo11n import load_detector

    torch.manual_seed(0)
    model = SegmentationModel("yolo11n-seg.yaml", nc=10, verbose=False).eval()
    model.names = {index: f"class {index}" for index in range(10)}
    torch.save({"model": model, "train_args": {"task": "segment"}}, room / "seg.pt")
    source = {"detector": Source(name="untrained", sha256="0", licence="none", trained=False)}
    network = load_detector(room / "seg.pt", with_masks=True)
    export_networks(network, None, source, room / "yolo-seg", ExportOptions())
    return room / "yolo-seg"


def side_of_crops() -> int:
    """Side of the shipped crop segmenter's input in pixels."""
    stage = json.loads((CROP_MODELS / "segmenter.json").read_text())["stage"]
    return int(stage["inputs"][0]["shape"][1])


class Listener(logging.Handler):
    """Reads the builder's log for the activation memory of each plan."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.activations: list[int] = []

    def __enter__(self) -> Listener:
        logger = logging.getLogger("edgekd.tensorrt")
        self._old = logger.level
        logger.setLevel(logging.DEBUG)
        logger.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logger = logging.getLogger("edgekd.tensorrt")
        logger.setLevel(self._old)
        logger.removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Take one line of the log."""
        if found := re.search(r"Total Activation Memory: (\d+)", record.getMessage()):
            self.activations.append(int(found[1]))


def too_large(sm: int, rows: dict[str, dict[str, float]]) -> list[str]:
    """Return a sentence for every number above its bound."""
    found = []
    for name, row in rows.items():
        most = {"plan_mb": PLAN_MB[name], "activation_mb": ACTIVATION_MB[name]}
        if name == "encoder" and sm < 80:
            most = OLD_ENCODER_MB
        if row["plan_mb"] > most["plan_mb"]:
            found.append(
                f"the plan of the {name} for sm_{sm} has {row['plan_mb']:.0f} MB, expected at most {most['plan_mb']}"
            )
        if row["activation_mb"] > most["activation_mb"]:
            found.append(
                f"the {name} for sm_{sm} wants {row['activation_mb']:.0f} MB of activations, "
                f"expected at most {most['activation_mb']}"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
