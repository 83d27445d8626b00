"""No library below edgekd reports its use: nothing is kept outside the output, no thread waits to send."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Each reports when it is imported, from a thread that it starts for it, and keeps a number of the user in a file.
PROGRAM = """
import os, edgekd
for name in {modules}:
    __import__(name)
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.parametrize("modules", [["openvino"], ["onnxruntime"]], ids=lambda names: names[0])
def test_an_import_sends_nothing(modules: list[str], tmp_path: Path) -> None:
    for name in modules:
        pytest.importorskip(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("ORT_DISABLE_TELEMETRY", "CI")}
    environment |= {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "OMP_NUM_THREADS": "1"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent.parent)}
    program = PROGRAM.format(modules=modules)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"]
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("given", "expected"), [(None, "0"), ("2", "2")])
def test_no_map_for_a_profiler_is_left_unless_asked_for(given: str | None, expected: str) -> None:
    """On 64-bit Arm every process left one in /tmp; `benchmarks/bench_root.py` looks there."""
    environment = {name: value for name, value in os.environ.items() if name != "ONEDNN_JIT_PROFILE"}
    environment |= {"PYTHONPATH": str(Path(__file__).parent.parent)}
    environment |= {} if given is None else {"ONEDNN_JIT_PROFILE": given}
    program = "import os, edgekd; print(os.environ['ONEDNN_JIT_PROFILE'])"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_ultralytics_sends_nothing_where_edgekd_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ultralytics")
    from edgekd.train.run_folder import log_on_stderr

    monkeypatch.delenv("YOLO_OFFLINE", raising=False)
    with log_on_stderr():
        assert os.environ["YOLO_OFFLINE"] == "true"
