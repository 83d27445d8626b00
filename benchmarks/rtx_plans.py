"""Plans of TensorRT-RTX for five generations of GPUs, built on a machine with none: how large, and how much memory.

    python benchmarks/rtx_plans.py [--sm 75,80,86,89,120] [--models DIR] [--out FILE]

Every stage of the default models (1024 px, fp16) and the shipped crop segmenter are built as `edgekd build-engine`
builds them. The activation memory is what the builder says in its log. A plan or an activation above its bound is an
error, exit code 1: a change in the export has made something large. Finished plans are kept in the result file, so that
the command goes on where it was stopped; it takes some minutes of a CPU.
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

from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.deploy.tensorrt_build import PlanOptions, build_plan
from edgekd.environment import describe_machine
from edgekd.files import write_text
from edgekd.package_files import CROP_MODELS, default_models
from edgekd.runtime.tensorrt_library import library_version

# Megabytes of a plan and of its activations. For compute capability 7.5 and 8.0 the encoder's plan carries kernels that
# newer cards compile themselves.
PLAN_MB = {"detector": 40, "encoder": 60, "decoder": 40, "segmenter": 8}
OLD_ENCODER_MB = 600
ACTIVATION_MB = {"detector": 60, "encoder": 120, "decoder": 300, "segmenter": 60}
CROP_BOXES = 16


def main(words: list[str] | None = None) -> int:
    """Build what is not built yet, and write the result file after each GPU."""
    arguments = parse(words)
    machine = describe_machine()
    out = arguments.output or result_path("rtx_plans")
    head = {"theme": "rtx_plans", "machine": machine.model_dump(), "tensorrt_rtx": library_version(True)}
    settings = {"precision": "fp16", "crop_boxes": CROP_BOXES, "plan_mb": PLAN_MB, "activation_mb": ACTIVATION_MB}
    result: dict[str, Any] = json.loads(json.dumps(head | {"settings": settings, "plans": {}}))
    if out.is_file():
        old = json.loads(out.read_text())
        if (old["tensorrt_rtx"], old["settings"]) == (result["tensorrt_rtx"], result["settings"]):
            result["plans"] = old["plans"]
    for sm in arguments.sm.split(","):
        if sm not in result["plans"]:
            result["plans"][sm] = plans_of(arguments.models or default_models(), int(sm))
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
    parser.add_argument("--models", type=Path, default=None, help="what edgekd export wrote; default: the shipped")
    parser.add_argument("-o", "--output", "--out", type=Path, default=None, help="the result file")
    return parser.parse_args(words)


def plans_of(models: Path, sm: int) -> dict[str, dict[str, float]]:
    """Build every stage for one compute capability; returns megabytes and seconds by stage."""
    capability = f"{sm // 10}.{sm % 10}"
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, Listener() as said:
        start = time.process_time()
        options = BuildOptions(backend="tensorrt-rtx", precision="fp16", compute_capability=capability)
        manifest = build_bundle(models, Path(folder) / "bundle", options, lambda line: None)
        for (name, stage), activation in zip(manifest.stages.items(), said.activations, strict=True):
            rows[name] = {"plan_mb": stage.files[0].n_bytes / 1e6, "activation_mb": activation / 1e6}
        said.activations.clear()
        side = side_of_crops()
        profiles = {"crops": tuple((n, side, side, 3) for n in (1, CROP_BOXES, CROP_BOXES))}
        plan = build_plan(
            CROP_MODELS / "segmenter.onnx",
            PlanOptions(rtx=True, compute_capability=capability, precision="fp16", profiles=profiles),  # type: ignore[arg-type]
        )
        rows["segmenter"] = {"plan_mb": len(plan) / 1e6, "activation_mb": said.activations[0] / 1e6}
        rows["all"] = {"cpu_seconds": round(time.process_time() - start, 1)}
    return rows


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
        if name == "all":
            continue
        most = OLD_ENCODER_MB if name == "encoder" and sm <= 80 else PLAN_MB[name]
        if row["plan_mb"] > most:
            found.append(f"the plan of the {name} for sm_{sm} has {row['plan_mb']:.0f} MB, expected at most {most}")
        if row["activation_mb"] > ACTIVATION_MB[name]:
            found.append(
                f"the {name} for sm_{sm} wants {row['activation_mb']:.0f} MB of activations, "
                f"expected at most {ACTIVATION_MB[name]}"
            )
    return found


if __name__ == "__main__":
    sys.exit(main())
