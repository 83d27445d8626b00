"""Faults in the middle of a command: killed, stopped, no room for a file, few open files; then the same command again.

    python tests/attack/faults.py --faults 300 [--seed 0] [--verb run] [--json FILE]

After each fault the output folder must hold the old result or the new one or nothing, a file of the user beside it must
be untouched, and the same command must then end with 0 and leave no temporary file. Exit 1 when one of that fails.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parent))

from report import write_report
from targets import picture_bytes

FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "no room", "few files")
# A command that was stopped, or found no room, ends with one of these; a traceback ends with 1 and is looked for.
LAST_WORDS_BYTES = 4_000


@dataclass(frozen=True)
class Verb:
    """A command that reads `work/in` and writes `work/out`: its words, and how a whole result is known."""

    name: str
    words: Callable[[Path], list[str]]
    whole: Callable[[Path], bool]
    keeps_old: bool = False
    """A second call into the folder of a whole result is refused."""


def verbs() -> list[Verb]:
    """The commands that write something."""
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


def run_with_fault(words: list[str], work: Path, fault: str, after_s: float) -> tuple[int, str]:
    """Run the command and let the fault happen; return the exit code and its last words."""
    command = [sys.executable, "-m", "edgekd.cli.main", *words]

    def limit() -> None:
        if fault == "no room":
            # A file may not grow beyond this: the write fails as on a full disk, without a full disk.
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(after_s * 100_000) + 1, resource.RLIM_INFINITY))
        elif fault == "few files":
            resource.setrlimit(resource.RLIMIT_NOFILE, (8 + int(after_s * 10), 4096))

    errors = work / "stderr.txt"
    with errors.open("wb") as sink:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=sink, preexec_fn=limit)
        if fault.startswith("SIG"):
            time.sleep(after_s)
            process.send_signal(getattr(signal, fault))
        code = process.wait()
    text = errors.read_bytes()[-LAST_WORDS_BYTES:].decode(errors="replace")
    errors.unlink()
    return code, text


def try_fault(verb: Verb, inputs: Path, work: Path, fault: str, after_s: float) -> str:
    """Return what went wrong, or an empty string."""
    out, diary = work / "out", work / "diary.txt"
    diary.write_text("the user's own")
    (work / "in").symlink_to(inputs)
    before = tree_of(inputs)
    code, text = run_with_fault(verb.words(work), work, fault, after_s)
    if "Traceback" in text and fault not in ("SIGINT", "few files"):
        return f"traceback: {text.strip().splitlines()[-1]}"
    if code == 0 and not verb.whole(out):
        return "ended with 0 and a result that is not whole"
    if diary.read_text() != "the user's own" or tree_of(inputs) != before:
        return "changed a file of the user"
    if code == 0 and verb.keeps_old:
        return ""
    done = subprocess.run(
        [sys.executable, "-m", "edgekd.cli.main", *verb.words(work)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return f"the next call ended with {done.returncode}: {done.stderr.strip()[-200:]}"
    if not verb.whole(out):
        return "the next call left a result that is not whole"
    left = sorted(path.name for path in work.iterdir() if path.name not in ("in", "out", "diary.txt"))
    return f"left behind: {left}" if left else ""


def tree_of(folder: Path) -> dict[str, int]:
    """Relative path -> size of everything below a folder."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    """Try faults, print what goes wrong, write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verb")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    random, counts, findings = Random(options.seed), Counter[str](), list[str]()
    start = time.perf_counter()
    chosen = [verb for verb in verbs() if options.verb in (None, verb.name)]
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "inputs"
        lay_inputs(inputs)
        for number in range(options.faults):
            verb, fault = chosen[number % len(chosen)], FAULTS[number // len(chosen) % len(FAULTS)]
            after_s = random.uniform(0.0, 5.0)
            with tempfile.TemporaryDirectory(dir=name) as work:
                wrong = try_fault(verb, inputs, Path(work), fault, after_s)
            counts[f"{verb.name}, {fault}: {'wrong' if wrong else 'right'}"] += 1
            if wrong:
                findings.append(f"fault {number}, {verb.name}, {fault} after {after_s:.2f} s: {wrong}")
                print(findings[-1], flush=True)
    for line, count in sorted(counts.items()):
        print(f"{line}: {count}")
    if options.json:
        settings = {"faults": options.faults, "seed": options.seed, "verbs": [verb.name for verb in chosen]}
        write_report(options.json, settings, dict(counts), findings, time.perf_counter() - start)
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
