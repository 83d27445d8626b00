"""What this machine is: processor, memory, GPU, Jetson power mode, package versions; every result file carries it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

PACKAGES = (
    "numpy", "opencv-python", "openvino", "onnxruntime", "onnx", "nncf", "torch", "ultralytics", "timm",
    "transformers", "triton", "tensorrt", "tensorrt-rtx", "pycuda",
)  # fmt: skip
L4T_RELEASE = Path("/etc/nv_tegra_release")
_ISA_FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "bf16")


class Machine(BaseModel):
    """Where a number was measured. Fields are None where the machine has no such thing or does not say."""

    model_config = ConfigDict(frozen=True)

    cpu: str
    n_cores: int
    isa: tuple[str, ...]
    memory_gib: float
    os: str
    python: str
    gpu: str | None = None
    gpu_driver: str | None = None
    jetson: str | None = None
    l4t: str | None = None
    power_mode: str | None = None
    load_average: float | None = None
    versions: dict[str, str]


def describe_machine() -> Machine:
    """Read the facts of this machine; needs no privileges and loads no heavy library."""
    gpu, driver = _gpu()
    return Machine(
        cpu=_cpu_name(),
        n_cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        isa=_isa(),
        memory_gib=round(_memory_bytes() / 2**30, 1),
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        gpu=gpu,
        gpu_driver=driver,
        jetson=_first_line(Path("/proc/device-tree/model")),
        l4t=l4t_version(),
        power_mode=_power_mode(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        versions=package_versions(),
    )


def saturates_int8(isa: Sequence[str]) -> bool:
    """Say whether a processor with these instructions adds pairs of 8-bit products in 16 bits, where they saturate.

    x86 without VNNI does (`vpmaddubsw`: 2 x 255 x 127 is above 32767); VNNI, AMX and ARM add in 32 bits.
    """
    return "avx2" in isa and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(isa)


def package_versions() -> dict[str, str]:
    """Return name -> version of the installed packages among `PACKAGES`."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def has_module(name: str) -> bool:
    """Say whether a top-level module can be found, without importing it."""
    return importlib.util.find_spec(name) is not None


def need_modules(purpose: str, names: Sequence[str], extra: str) -> None:
    """Check that modules are installed, before anything is read or written.

    Args:
        purpose: what needs them, such as `training`.
        names: top-level modules.
        extra: the extras of edgekd that bring them, with commas between them.

    Raises:
        BackendUnavailable: one cannot be found.
    """
    from edgekd.errors import BackendUnavailable

    if missing := [name for name in names if not has_module(name)]:
        raise BackendUnavailable(
            f"{purpose} needs {', '.join(missing)}; install them with: pip install 'edgekd[{extra}]'"
        )


def device_slug(machine: Machine) -> str:
    """Return a short name for result files, such as `amd-epyc-2core-avx2` or `jetson-orin-nano`.

    A processor's name carries its widest instruction set: times of two sets are not comparable.
    """
    if machine.jetson:
        name = machine.jetson
    elif machine.gpu:
        name = machine.gpu
    else:
        name = f"{machine.cpu} {machine.n_cores}core"
    kept = [word for word in name.lower().replace("(r)", "").replace("(tm)", "").split() if word.isascii()]
    isa = machine.isa[-1:] if not (machine.jetson or machine.gpu) else ()
    return "-".join("".join(c for c in word if c.isalnum()) for word in (*kept[:4], *isa))


def _cpu_name() -> str:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def has_bf16() -> bool:
    """Say whether this processor has instructions for bf16; without them it is many times slower than fp32."""
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(_isa())


def _isa() -> tuple[str, ...]:
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":", 1)[1].split())
            return tuple(flag for flag in _ISA_FLAGS if flag in flags)
    return ()


def _memory_bytes() -> int:
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return 0


def _gpu() -> tuple[str | None, str | None]:
    line = _command_line(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"])
    if not line or "," not in line:
        return None, None
    name, driver = line.split(",")[:2]
    return name.strip(), driver.strip()


def is_jetson() -> bool:
    """Say whether this is a Jetson, by the name of its board or of its Linux for Tegra."""
    return "jetson" in (_first_line(Path("/proc/device-tree/model")) or "").lower() or L4T_RELEASE.is_file()


def l4t_version(root: Path = Path("/")) -> str | None:
    """Return the release of Linux for Tegra, such as 36.4.3 for `# R36 (release), REVISION: 4.3, GCID: ...`."""
    line = _first_line(root / L4T_RELEASE.relative_to("/")) or ""
    found = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", line)
    return f"{found[1]}.{found[2]}" if found else None


def _power_mode() -> str | None:
    """Read `NV Power Mode: 15W` among the lines of nvpmodel, which on some releases begins with warnings."""
    marker = "NV Power Mode:"
    found = [line for line in _command_lines(["nvpmodel", "-q"]) if marker in line]
    return found[0].split(marker, 1)[1].strip() if found else None


def _command_line(command: list[str]) -> str | None:
    """First line that a command prints, None where it is not installed or fails."""
    return next(iter(_command_lines(command)), None)


def _command_lines(command: list[str]) -> list[str]:
    """Lines that a command prints, none where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (subprocess.SubprocessError, OSError):
        return []
    return done.stdout.strip().splitlines()


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _first_line(path: Path) -> str | None:
    lines = _lines(path)
    return lines[0].strip("\x00 ") if lines else None


_EXTRA_OF = {
    "onnx": "build", "onnxruntime": "build", "onnxscript": "build", "torch": "build", "torchvision": "build",
    "ultralytics": "build", "timm": "build", "nncf": "build", "faster_coco_eval": "train", "pywt": "train",
    "safetensors": "train", "matplotlib": "train", "yaml": "train", "shapely": "geo", "scipy": "train",
    "transformers": "sam3", "rasterio": "geo", "pyogrio": "geo", "tensorrt": "tensorrt", "tensorrt_rtx": "rtx",
    "minisign": "sign",
}  # fmt: skip


def missing_module(error: ModuleNotFoundError, purpose: str) -> Exception:
    """Return what to raise when an import fails: one sentence with the extra that brings the module, else the error."""
    from edgekd.errors import BackendUnavailable

    module = (error.name or "").split(".")[0]
    if module not in _EXTRA_OF:
        return error
    return BackendUnavailable(
        f"{purpose} needs {module}, which is not installed; install it with: pip install 'edgekd[{_EXTRA_OF[module]}]'"
    )
