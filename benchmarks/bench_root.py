"""Does the wheel install and run where nothing of edgekd has been: in a clean root file system, x86-64 or 64-bit Arm.

    .ci/wheels
    .ci/make-root aarch64 /tmp/root
    python benchmarks/bench_root.py --root /tmp/root --wheel dist/edgekd-0.1.0-py3-none-manylinux_2_34_aarch64.whl

Needs root. Seconds of 64-bit Arm are those of QEMU on this machine and say nothing about a device; download is part of
the installation.
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

from result_file import write_result

ENTER = Path(__file__).parent.parent / ".ci/enter-root"
PYTHON = "/root/venv/bin/python"


def step(root: Path, *command: str) -> dict[str, float]:
    """Run a command in the root file system; it must succeed. Return its wall and processor seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([str(ENTER), str(root), *command], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall_s": round(time.perf_counter() - start, 1), "processor_s": round(used, 1)}


def measure(root: Path, wheel: Path) -> dict[str, Any]:
    """Install the wheel into a new environment, run the demonstration, look at what it wrote."""
    for name in ("venv", "demo"):
        shutil.rmtree(root / "root" / name, ignore_errors=True)
    shutil.copy(wheel, root / "root")
    steps = {
        "venv": step(root, "/usr/bin/python3", "-m", "venv", "/root/venv"),
        "install": step(root, PYTHON, "-m", "pip", "install", "-q", "--no-cache-dir", f"/root/{wheel.name}"),
        "demo": step(root, PYTHON, "/root/venv/bin/edgekd", "demo", "-o", "/root/demo"),
        "second demo": step(root, PYTHON, "/root/venv/bin/edgekd", "demo", "-o", "/root/demo"),
    }
    names = sorted(path.name for path in (root / "root/demo").iterdir())
    known = {"venv", "demo", wheel.name, ".cache", ".bashrc", ".profile"}
    if elsewhere := {path.name for path in (root / "root").iterdir()} - known | {
        path.name for path in (root / "tmp").iterdir()
    }:
        raise SystemExit(f"the demonstration wrote {sorted(elsewhere)} outside its folder")
    (picture,) = json.loads((root / "root/demo/results.json").read_text())["pictures"]
    if not picture["objects"]:
        raise SystemExit(f"the demonstration wrote {names} and found no object")
    release = (root / "usr/lib/os-release").read_text().split('PRETTY_NAME="')[1].split('"')[0]
    return {
        "system": release,
        "machine_of_wheel": wheel.stem.rsplit("_", 2 if wheel.stem.endswith("x86_64") else 1)[-1],
        "wheel": wheel.name,
        "wheel_sha256": hashlib.sha256(wheel.read_bytes()).hexdigest(),
        "steps": steps,
        "demo_files": names,
        "demo_objects": len(picture["objects"]),
        "installed_mb": round(sum(p.stat().st_size for p in (root / "root/venv").rglob("*") if p.is_file()) / 1e6),
    }


def main() -> None:
    """Measure and write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    theme = "root_aarch64" if options.wheel.stem.endswith("aarch64") else "root_x86_64"
    print(write_result(theme, measure(options.root, options.wheel), options.output))


if __name__ == "__main__":
    main()
