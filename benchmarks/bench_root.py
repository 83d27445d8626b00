"""Does the wheel install and run where nothing of edgekd has been: in a clean root file system, x86-64 or 64-bit Arm.

    .ci/wheels
    .ci/make-root aarch64 FOLDER
    python benchmarks/bench_root.py --root FOLDER --wheel dist/edgekd-0.1.0-py3-none-manylinux_2_34_aarch64.whl

Needs root. Download is part of the installation. 64-bit Arm runs under QEMU on this machine: its seconds are no
estimate of a device, they only bound it from above; what means something is that every step ends well and that the
demonstration finds the same objects as on x86-64. The result file is written after each step, and a call with the same
wheel goes on after the last one; `--kind crop` leaves out the way to a mask that takes hours under QEMU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from result_file import result_path, write_result

ENTER = Path(__file__).parent.parent / ".ci/enter-root"
PYTHON = "/root/venv/bin/python"
OUTPUT = ("-o", "/root/demo")
KINDS = ("crop", "sam")
NOTES = {
    "x86_64": "native; the download is part of the installation",
    "aarch64": "under QEMU (cortex-a76): an upper bound, no estimate of a device; compare it as a ratio only",
}


def step(root: Path, *command: str) -> dict[str, float]:
    """Run a command in the root file system; it must succeed. Return its wall and processor seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([str(ENTER), str(root), *command], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - start, 1), "processor_s": round(used, 1)}


def measure(root: Path, wheel: Path, kinds: list[str], output: Path) -> Path:
    """Install the wheel into a new environment, run the demonstration, and return the result file."""
    machine = "aarch64" if wheel.stem.endswith("aarch64") else "x86_64"
    digest, path = hashlib.sha256(wheel.read_bytes()).hexdigest(), result_path(f"root_{machine}", output)
    earlier = json.loads(path.read_text()) if path.exists() else {}
    steps: dict[str, dict[str, float]] = earlier["steps"] if earlier.get("wheel_sha256") == digest else {}
    if not steps:
        for name in ("venv", "demo"):
            shutil.rmtree(root / "root" / name, ignore_errors=True)
        shutil.copy(wheel, root / "root")
    commands = {
        "venv": ("/usr/bin/python3", "-m", "venv", "/root/venv"),
        "install": (PYTHON, "-m", "pip", "install", "-q", "--no-cache-dir", f"/root/{wheel.name}"),
        **{f"demo {kind}": (PYTHON, "/root/venv/bin/edgekd", "demo", "--kind", kind, *OUTPUT) for kind in kinds},
    }
    for name, command in commands.items():
        if name not in steps:
            steps[name] = step(root, *command)
            check_elsewhere(root, {"venv", "demo", wheel.name, ".cache", ".bashrc", ".profile"})
            write_result(f"root_{machine}", facts_of(root, wheel, machine) | {"steps": steps}, output)
    return path


def facts_of(root: Path, wheel: Path, machine: str) -> dict[str, Any]:
    """What was installed where, and what the demonstrations so far have found."""
    demos = {"sam": root / "root/demo", "crop": root / "root/demo/crop"}
    venv = root / "root/venv"
    return {
        "system": (root / "usr/lib/os-release").read_text().split('PRETTY_NAME="')[1].split('"')[0],
        "machine_of_wheel": machine,
        "note": NOTES[machine],
        "wheel": wheel.name,
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "installed_versions": installed_versions(venv),
        "installed_mb": round(sum(path.stat().st_size for path in venv.rglob("*") if path.is_file()) / 1e6),
        "objects": {kind: objects_of(demo) for kind, demo in demos.items() if (demo / "results.json").is_file()},
    }


def check_elsewhere(root: Path, known: set[str]) -> None:
    """Nothing may lie in the home folder but what is known, and nothing at all among the temporary files."""
    names = {path.name for path in (root / "root").iterdir()} - known
    if elsewhere := names | {path.name for path in (root / "tmp").iterdir()}:
        raise SystemExit(f"the demonstration wrote {sorted(elsewhere)} outside its folder")


def objects_of(folder: Path) -> list[list[Any]]:
    """Class, confidence and box of each object of a demonstration; there must be some."""
    (picture,) = json.loads((folder / "results.json").read_text())["pictures"]
    if not picture["objects"]:
        raise SystemExit(f"the demonstration in {folder} found no object")
    return [[each["class_name"], each["confidence"], *each["xyxy"]] for each in picture["objects"]]


def installed_versions(venv: Path) -> dict[str, str]:
    """Name -> version of what lies in an environment, read without running it."""
    found = (path.name.removesuffix(".dist-info").split("-") for path in venv.rglob("*.dist-info"))
    return {name: version for name, version in sorted(found)}


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--kind", choices=KINDS, action="append", help="of the demonstration; both by default")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    print(measure(options.root, options.wheel, options.kind or list(KINDS), options.output))


if __name__ == "__main__":
    main()
