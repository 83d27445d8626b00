"""Running compilers and programs in the tests of the C library; without tools they skip and say what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekd.capi.build import SOURCES


def require(*tools: str) -> None:
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not on this machine; see CONTRIBUTING.md for the packages of the C tests")


def run(*command: str | Path, **variables: str) -> str:
    """Run a program and return what it printed; show it when it fails."""
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, env={**os.environ, **variables}, timeout=600
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def cmake(build: Path, *options: str, targets: tuple[str, ...] = ()) -> Path:
    """Configure and build the C sources in `build`."""
    require("cmake", "cc", "c++")
    if not any(Path(root, "nlohmann", "json.hpp").is_file() for root in ("/usr/include", "/usr/local/include")):
        pytest.skip("nlohmann-json is not installed; on Debian: apt install nlohmann-json3-dev")
    run("cmake", "-S", SOURCES, "-B", build, *options)
    wanted = ("--target", *targets) if targets else ()
    run("cmake", "--build", build, "--parallel", "2", *wanted)
    return build
