"""A disk that fills up during a build is one sentence, whichever library writes, and the old bundle stays."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from small_models import write_small_models

# The limit on the size of a file stands for a full disk: it fails in the libraries' own writers as well.
BUILD = """
import resource, sys
from pathlib import Path
from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.errors import EdgekdError
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    build_bundle(Path(sys.argv[1]), Path(sys.argv[2]), BuildOptions(backend=sys.argv[3], precision="fp32", square=True))
except EdgekdError as error:
    print(error)
"""


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_full_disk_is_one_sentence(backend: str, tmp_path: Path) -> None:
    pytest.importorskip(backend)
    models = tmp_path / "models"
    write_small_models(models)
    command = [sys.executable, "-c", BUILD, str(models), str(tmp_path / "b"), backend]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "cannot write" in run.stdout or "cannot be written" in run.stdout
    assert "free space" in run.stdout
    assert run.stdout.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["models"]
