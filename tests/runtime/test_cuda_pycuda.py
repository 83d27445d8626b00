"""The PyCUDA layer, driven through a stand-in for `pycuda.driver` that works on the host implementation of CUDA.

The stand-in refuses every call while no context is current, which is how PyCUDA programs fail in threads.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgekd.errors import BackendUnavailable
from edgekd.runtime import cuda
from edgekd.runtime.cuda_pycuda import PyCuda
from edgekd.runtime.engines.tensorrt import TensorRtEngine
from edgekd.runtime.tensorrt_library import tensorrt_library

sys.path.insert(0, str(Path(__file__).parent))
import host_cuda
import tiny_plans


class FakeDriver:
    """`pycuda.driver` as far as it is used; `depth` counts the contexts that a thread has pushed."""

    Error = type("Error", (Exception,), {})
    device_attribute = SimpleNamespace(MULTIPROCESSOR_COUNT="sms")

    def __init__(self, gpu, cudart):
        self.gpu, self.cudart, self.local, self.fails = gpu, cudart, threading.local(), False

    def init(self):
        if self.fails:
            raise self.Error("cuInit failed: no CUDA-capable device is detected")

    def Device(self, index):
        context = SimpleNamespace(push=lambda: self.step(1), pop=lambda: self.step(-1))
        return SimpleNamespace(
            retain_primary_context=lambda: context,
            compute_capability=lambda: (8, 7),
            get_attribute=lambda name: {"sms": 8}[name],
        )

    def step(self, change):
        self.local.depth = getattr(self.local, "depth", 0) + change

    def current(self):
        assert getattr(self.local, "depth", 0) == 1, "invalid device context"
        return self.gpu

    def mem_alloc(self, n_bytes):
        address = self.current().allocate(n_bytes)
        return type("Memory", (), {"__int__": lambda _: address, "free": lambda _: self.current().free(address)})()

    def pagelocked_empty(self, n_bytes, dtype):
        address = self.current().allocate_pinned(n_bytes)
        return host_cuda.view(address, dtype, (n_bytes,))

    def memcpy_htod_async(self, device, host, stream):
        self.current().copy_to_device(device, host.ctypes.data, host.nbytes, stream.handle)

    def memcpy_dtoh_async(self, host, device, stream):
        self.current().copy_to_host(host.ctypes.data, device, host.nbytes, stream.handle)

    def Stream(self):
        handle = self.current().create_stream()
        return SimpleNamespace(handle=handle, synchronize=lambda: self.current().synchronize(handle))

    def Event(self):
        handle, gpu = self.current().create_event(), self.current
        return SimpleNamespace(
            handle=handle,
            record=lambda stream: gpu().record(handle, stream.handle),
            time_since=lambda start: gpu().elapsed_ms(start.handle, handle),
        )


@pytest.fixture
def driver(monkeypatch):
    """Install the stand-in, and choose PyCUDA."""
    cudart = host_cuda.use_host_cuda(monkeypatch)
    made = FakeDriver(cuda.open_cuda(), cudart)
    monkeypatch.setitem(sys.modules, "pycuda", SimpleNamespace(driver=made))
    monkeypatch.setitem(sys.modules, "pycuda.driver", made)
    monkeypatch.setenv("EDGEKD_CUDA", "pycuda")
    cuda.open_cuda.cache_clear()
    yield made
    cuda.open_cuda.cache_clear()


def test_the_environment_chooses_it(driver):
    assert isinstance(cuda.open_cuda(), PyCuda)
    assert cuda.compute_capability() == "8.7"
    assert cuda.n_multiprocessors() == 8


def test_an_engine_runs_on_it_in_two_threads(driver, monkeypatch, tmp_path, caplog):
    host_cuda.use_fake_tensorrt(monkeypatch, driver.cudart)
    path = tmp_path / "stage.engine"
    path.write_bytes(tiny_plans.doubling_plan())
    engine = TensorRtEngine.open(path, rtx=False)
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    results = []

    def work(engine):
        for _ in range(3):
            results.append(engine.infer({"x": x, "bias": np.ones(1, np.float16)})["y"].copy())
        engine.close()

    thread = threading.Thread(target=work, args=(engine.clone(),))
    thread.start()
    thread.join()
    work(engine)
    assert len(results) == 6 and all((result == 2 * x + 1).all() for result in results)
    assert {record.message for record in caplog.records} == {
        "this plan runs without CUDA graphs: PyCUDA records no graphs"
    }
    gpu = cuda.open_cuda()
    assert not (gpu._memory or gpu._pinned or gpu._streams or gpu._events)
    assert driver.local.depth == 0
    tensorrt_library.cache_clear()


def test_no_gpu_is_one_sentence(driver):
    driver.fails = True
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU answers .PyCUDA: cuInit failed"):
        cuda.open_cuda()
    assert cuda.compute_capability() is None


def test_without_pycuda_it_says_how_to_go_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycuda", None)
    with pytest.raises(BackendUnavailable, match=r"pip install edgekd\[pycuda\], or unset EDGEKD_CUDA"):
        PyCuda()


def test_an_unknown_choice_is_refused(monkeypatch):
    monkeypatch.setenv("EDGEKD_CUDA", "numba")
    cuda.open_cuda.cache_clear()
    with pytest.raises(BackendUnavailable, match="EDGEKD_CUDA is 'numba', expected cudart or pycuda"):
        cuda.open_cuda()
    cuda.open_cuda.cache_clear()
