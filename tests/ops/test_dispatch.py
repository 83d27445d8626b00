"""Who computes: the choice, its reason, and what happens when a request cannot be met."""

import pytest
import torch

from edgekd.errors import BackendUnavailable, InputError
from edgekd.ops import _dispatch as dispatch
from edgekd.ops import haar_dwt2, resolve_backend


@pytest.fixture
def no_cpu_library(monkeypatch):
    dispatch._decide.cache_clear()
    monkeypatch.setattr("edgekd.ops._cpu.find_cpu_library", lambda: None)
    yield
    dispatch._decide.cache_clear()


def test_auto_takes_the_cpu_kernels_when_they_are_here(backend):
    expected = "cpu" if backend == "cpu" else resolve_backend("cpu", torch.float32).name
    assert resolve_backend("cpu", torch.float32, "auto").name == expected


def test_auto_falls_back_and_says_why(no_cpu_library):
    backend = resolve_backend("cpu", torch.float32)
    assert backend.name == "reference"
    assert "edgekd kernels compile --cpu" in backend.reason


def test_float64_and_other_devices_are_the_reference():
    assert "float64" in resolve_backend("cpu", torch.float64).reason
    assert resolve_backend("mps", torch.float32) == ("reference", "there are no kernels for mps tensors")


def test_a_forced_backend_that_is_missing_is_an_error(no_cpu_library):
    with pytest.raises(BackendUnavailable, match="the argument backend asks for cpu, but .* not compiled"):
        haar_dwt2(torch.zeros(1, 1, 2, 2), backend="cpu")


def test_the_environment_forces_and_the_argument_wins(monkeypatch, no_cpu_library):
    monkeypatch.setenv("EDGEKD_KERNELS", "cpu")
    with pytest.raises(BackendUnavailable, match="the variable EDGEKD_KERNELS asks for cpu"):
        resolve_backend("cpu", torch.float32)
    assert resolve_backend("cpu", torch.float32, "reference").name == "reference"


def test_unknown_names_are_refused(monkeypatch):
    with pytest.raises(InputError, match="the argument backend is 'gpu', expected one of auto, triton"):
        resolve_backend("cpu", torch.float32, "gpu")
    monkeypatch.setenv("EDGEKD_KERNELS", "fast")
    with pytest.raises(InputError, match="EDGEKD_KERNELS is 'fast'"):
        haar_dwt2(torch.zeros(1, 1, 2, 2))
