"""A checkpoint that cannot be written is one sentence, and the last good one stays."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from edgekd.errors import TrainingError
from edgekd.train import checkpoint


def test_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "resume.pt"
    checkpoint.write_atomically(path, {"format": 1, "epoch": 7})

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError, match="No space left on device.*last good checkpoint is kept"):
        checkpoint.write_atomically(path, {"format": 1, "epoch": 8})
    assert checkpoint.read_state(path)["epoch"] == 7
    assert list(tmp_path.iterdir()) == [path]


def test_memory_that_runs_out_leaves_the_last_good_checkpoint(tmp_path):
    """Really: the process may grow by 8 MiB, the checkpoint is of 4 GiB. PyTorch raises a second error over it."""
    path = tmp_path / "resume.pt"
    with pytest.raises(TrainingError, match=r"memory ran out .*resume\.pt .*start the run again"):
        write_with_little_memory(path)
    assert list(tmp_path.iterdir()) == []
    checkpoint.write_atomically(path, {"format": 1, "epoch": 7})
    with pytest.raises(TrainingError, match="memory ran out .*last good checkpoint is kept: continue with `resume`"):
        write_with_little_memory(path)
    assert checkpoint.read_state(path)["epoch"] == 7
    assert list(tmp_path.iterdir()) == [path]


def write_with_little_memory(path: Path) -> None:
    # No earlier test can have left a free piece of 4 GiB in the heap. The tensor is never touched: it costs no memory.
    large = {"format": 1, "epoch": 8, "weights": torch.empty(4 << 30, dtype=torch.uint8)}
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 20), before[1]))
    try:
        checkpoint.write_atomically(path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
