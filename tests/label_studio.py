"""Label Studio's own reader of interfaces and results, from the package index, kept in the cache and not installed.

The folder EDGEKD_LABEL_STUDIO, or one in the cache, gets the wheels that the reader imports, unpacked: 30 MB.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PACKAGES = (
    "label-studio-sdk==2.1.2", "jsonschema==4.26.0", "jsonschema-specifications==2025.9.1", "referencing==0.37.0",
    "rpds-py==2026.9.1", "attrs==26.1.0", "lxml==6.1.3", "xmljson==0.2.1", "pyjwt", "appdirs",
)  # fmt: skip


def interface_class(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import `LabelInterface`; the test is skipped where the wheels are neither in the cache nor to be had."""
    pytest.importorskip("requests", reason="Label Studio's reader needs requests")
    tag = f"label-studio-{sys.implementation.cache_tag}"  # some of the wheels hold machine code
    folder = Path(os.environ.get("EDGEKD_LABEL_STUDIO", Path.home() / ".cache" / "edgekd" / tag))
    if not (folder / "whole").is_file():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--retries", "1", "--no-deps", "--upgrade"]
        command += ["--only-binary", ":all:", "--target", str(folder), *PACKAGES]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
            pytest.skip(f"Label Studio's reader is not in {folder.name} and cannot be downloaded: {last}")
        (folder / "whole").touch()
    samples = ModuleType("jsf")  # makes sample data, which is not asked for here
    samples.JSF = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "jsf", samples)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    return importlib.import_module("label_studio_sdk.label_interface").LabelInterface
