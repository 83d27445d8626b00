"""Does `pip install 'edgekd[device]'` give a Jetson what it needs and nothing more? Tried in a root of 64-bit Arm.

    .ci/wheels
    .ci/make-root aarch64 FOLDER
    python benchmarks/device_root.py --root FOLDER --wheel dist/edgekd-0.1.0-py3-none-manylinux_2_34_aarch64.whl

Needs root and qemu-user-static, which is told to name a Jetson's kernel, so that pip leaves OpenVINO out as it does
there. The wheel is installed with the extra `device` into a new environment; torch and OpenVINO must not be there. Then
`doctor`, a build that misses TensorRT, a bundle of ONNX Runtime that `inspect` and `doctor` look at, and everything of
a TensorRT build up to the call of the library (`onnx_side.py`); its graphs are compared with those that this machine
makes. Seconds are those of an emulation.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from result_file import result_path, write_result

HERE = Path(__file__).parent
ENTER = HERE.parent / ".ci/enter-root"
THEME = "device_root_aarch64"
JETSON_KERNEL = "5.15.148-tegra"
VENV = "/root/device"
UNWANTED = ("torch", "torchvision", "openvino", "ultralytics", "nncf", "triton", "tensorrt")


def step(root: Path, *command: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in the root file system; it must end with this exit code."""
    words = [str(ENTER), str(root), "/usr/bin/env", f"QEMU_UNAME={JETSON_KERNEL}", *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode != code:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-500:]} {done.stderr[-2000:]}"
        )
    return done


def installed(root: Path, wheel: Path) -> dict[str, Any]:
    """Install the wheel into a new environment and look at what came with it."""
    shutil.rmtree(root / VENV[1:], ignore_errors=True)
    shutil.copy(wheel, root / "root")
    step(root, "/usr/bin/python3", "-m", "venv", VENV)
    start = time.perf_counter()
    step(root, f"{VENV}/bin/python", "-m", "pip", "install", "-q", "--no-cache-dir", f"/root/{wheel.name}[device]")
    seconds = time.perf_counter() - start
    listed = json.loads(step(root, f"{VENV}/bin/python", "-m", "pip", "list", "--format", "json").stdout)
    packages = {row["name"].lower(): row["version"] for row in listed}
    if found := sorted(name for name in packages if name in UNWANTED or name.startswith("nvidia-")):
        raise SystemExit(f"the extra `device` brought {', '.join(found)}, expected none of {', '.join(UNWANTED)}")
    n_bytes = sum(path.stat().st_size for path in (root / VENV[1:]).rglob("*") if path.is_file())
    return {"packages": packages, "install_s": round(seconds, 1), "installed_mb": round(n_bytes / 1e6)}


SHIPPED_CROP = """
from pathlib import Path
from edgekd.package_files import default_models
from edgekd.models.crop_set import copy_shipped_crop
copy_shipped_crop(Path("/root/models"), default_models())
"""


def commands(root: Path) -> dict[str, str]:
    """Run what a user types where there is no TensorRT yet; returns what was said."""
    for name in ("models", "bundle"):
        shutil.rmtree(root / "root" / name, ignore_errors=True)
    python, edgekd = f"{VENV}/bin/python", (f"{VENV}/bin/python", f"{VENV}/bin/edgekd")
    kernel = step(root, python, "-c", "import platform; print(platform.release(), platform.machine())")
    step(root, python, "-c", SHIPPED_CROP)
    build = (*edgekd, "build-engine", "/root/models", "-o", "/root/bundle", "--detector-size", "320")
    return {
        "kernel": kernel.stdout.strip(),
        "doctor": step(root, *edgekd, "doctor").stdout,
        "build-engine without TensorRT": step(root, *build, "--backend", "tensorrt", code=1).stderr.strip(),
        "build-engine for ONNX Runtime": step(root, *build, "--backend", "onnxruntime").stdout,
        "inspect": step(root, *edgekd, "inspect", "/root/bundle").stdout,
        "doctor of the bundle": step(root, *edgekd, "doctor", "/root/bundle").stdout,
    }


def onnx_side(root: Path, version: str) -> dict[str, Any]:
    """Run the build for one TensorRT there and here, and compare the graphs."""
    shutil.copy(HERE / "onnx_side.py", root / "root/onnx_side.py")
    start = time.perf_counter()
    there = json.loads(step(root, f"{VENV}/bin/python", "/root/onnx_side.py", "--versions", version).stdout)[version]
    seconds = time.perf_counter() - start
    command = [sys.executable, str(HERE / "onnx_side.py"), "--versions", version]
    here = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[version]
    for name, found in there.items():
        if found["operators"] != here[name]["operators"]:
            raise SystemExit(f"the {name} for TensorRT {version} has other operators there: {found['operators']}")
    same = all(here[name]["sha256"] == found["sha256"] for name, found in there.items())
    return {"graphs": there, "same_nodes_and_weights_as_on_x86_64": same, "seconds": round(seconds, 1)}


def main() -> None:
    """Do the steps that were asked for, and write the result file after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--steps", default="install,commands,8.6.1,10.3.0,11.0.0", help="the last ones are TensorRTs")
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results")
    options = parser.parse_args()
    path = result_path(THEME, options.output)
    content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"builds": {}}
    for name in options.steps.split(","):
        if name == "install":
            content = {"wheel": options.wheel.name, "installed": installed(options.root, options.wheel), "builds": {}}
        elif name == "commands":
            content["said"] = commands(options.root)
        else:
            content["builds"][name] = onnx_side(options.root, name)
        print(write_result(THEME, content, options.output), name, flush=True)


if __name__ == "__main__":
    main()
