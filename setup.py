"""Metadata, dependencies and extras of edgekd; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (ROOT / "edgekd/__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)

BUILD = [
    "torch>=2.6", "torchvision", "ultralytics>=8.4.100", "timm>=1.0.15", "onnx>=1.16", "onnxsim>=0.4.36",
    "onnxscript>=0.3", "onnxruntime>=1.19", "nncf>=2.14",
]  # fmt: skip
TRAIN = [*BUILD, "pywavelets>=1.5", "faster-coco-eval>=1.6", "safetensors>=0.4", "matplotlib>=3.7", "pyyaml>=6"]
RTX = ["tensorrt-rtx>=1.4"]
SAM3 = ["transformers>=5.0"]

setup(
    name="edgekd",
    version=VERSION,
    description="Carries a detector and a promptable segmenter from training to a small device.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10,<3.14",
    packages=[*find_packages(include=["edgekd", "edgekd.*"]), "edgekd._cuda_kernels", "edgekd._calibration"],
    package_dir={"edgekd._cuda_kernels": "cuda_kernels", "edgekd._calibration": "calibration"},
    package_data={
        "edgekd": ["py.typed", "demo.jpg", "default_models/*", "models/cards/*", "train/splits/*", "capi/**/*"],
        "edgekd._cuda_kernels": ["**/*"],
        "edgekd._calibration": ["**/*"],
    },
    entry_points={"console_scripts": ["edgekd=edgekd.cli.main:main"]},
    install_requires=[
        "numpy>=1.24",
        "opencv-python>=4.8",
        "openvino>=2024.4",
        "pydantic>=2.5",
        "typer>=0.12",
        "rich>=13",
    ],
    extras_require={
        "build": BUILD,
        "train": TRAIN,
        "tensorrt": ["tensorrt>=8.6"],
        "rtx": RTX,
        # A source distribution that needs the CUDA toolkit; the default path on a GPU is ctypes.
        "pycuda": ["pycuda>=2024.1"],
        "sam3": SAM3,
        "geo": ["rasterio>=1.3"],
        "dev": [
            *TRAIN, *RTX, *SAM3, "pytest>=8", "hypothesis>=6", "mypy>=1.11", "ruff>=0.6", "pycocotools>=2.0.7",
            "pre-commit>=3",
        ],
    },
)  # fmt: skip
