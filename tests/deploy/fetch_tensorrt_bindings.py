"""Download the TensorRT Python bindings that the API check imports: nine wheels, 11 MB, no libraries.

    python tests/deploy/fetch_tensorrt_bindings.py FOLDER

The test looks in the folder that EDGEKD_TENSORRT_WHEELS names, and downloads what is missing there when it can.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

RELEASES = {
    "8.6.1": "tensorrt-bindings",
    "10.0.1": "tensorrt-cu12-bindings",
    "10.3.0": "tensorrt-cu12-bindings",
    "10.7.0.post1": "tensorrt-cu12-bindings",
    "10.13.0.35": "tensorrt-cu12-bindings",
    "10.16.1.11": "tensorrt-cu12-bindings",
    "11.0.0.114": "tensorrt-cu12-bindings",
    "11.4.0.106": "tensorrt-cu12-bindings",
    "1.7.1.116": "tensorrt-rtx-cu13-bindings",
}
"""Version -> distribution; the last one is TensorRT-RTX."""


def wheel_of(version: str, folder: Path) -> Path | None:
    """Return the wheel of a release for this Python, or None when it is not in the folder."""
    name = RELEASES[version].replace("-", "_")
    interpreter = f"cp{sysconfig.get_config_var('py_version_nodot')}"
    return next(folder.glob(f"{name}-{version}-{interpreter}-*.whl"), None)


def fetch(version: str, folder: Path) -> str | None:
    """Download one release; return why it failed, or None."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "1", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), f"{RELEASES[version]}=={version}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode == 0 and wheel_of(version, folder):
        return None
    return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "pip gave no reason"


if __name__ == "__main__":
    target = Path(sys.argv[1])
    for release in RELEASES:
        failure = None if wheel_of(release, target) else fetch(release, target)
        print(f"{RELEASES[release]} {release}: {failure or 'there'}")
