"""The ctypes layer against the host implementation of the CUDA calls, and the sentences when CUDA is absent."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.errors import BackendUnavailable
from edgekd.runtime import cuda
from edgekd.runtime.cuda_calls import CudaError

sys.path.insert(0, str(Path(__file__).parent))
import host_cuda


@pytest.fixture
def cudart(monkeypatch):
    yield host_cuda.use_host_cuda(monkeypatch)
    cuda.open_cuda.cache_clear()


@pytest.fixture
def fresh():
    cuda.open_cuda.cache_clear()
    yield
    cuda.open_cuda.cache_clear()


def test_compute_capability_comes_from_the_device(cudart):
    assert cuda.compute_capability() == "8.7"
    assert cuda.n_multiprocessors() == 8


def test_a_copy_there_and_back(cudart):
    gpu = cuda.open_cuda()
    before = cudart.host_live_objects()
    device, source, target = gpu.allocate(64), gpu.allocate_pinned(64), gpu.allocate_pinned(64)
    stream = gpu.create_stream()
    host_cuda.view(source, np.uint8, (64,))[:] = np.arange(64)
    gpu.copy_to_device(device, source, 64, stream)
    gpu.copy_to_host(target, device, 64, stream)
    assert host_cuda.view(target, np.uint8, (64,))[0] == 0xA5, "queued work runs only when it is waited for"
    gpu.synchronize(stream)
    assert (host_cuda.view(target, np.uint8, (64,)) == np.arange(64)).all()
    gpu.free(device)
    gpu.free_pinned(source)
    gpu.free_pinned(target)
    gpu.destroy_stream(stream)
    assert cudart.host_live_objects() == before


def test_events_time_what_lies_between_them(cudart):
    gpu = cuda.open_cuda()
    stream, start, end = gpu.create_stream(), gpu.create_event(), gpu.create_event()
    gpu.record(start, stream)
    gpu.record(end, stream)
    with pytest.raises(CudaError, match="cudaEventElapsedTime failed"):
        gpu.elapsed_ms(start, end)
    gpu.synchronize(stream)
    assert gpu.elapsed_ms(start, end) >= 0
    gpu.destroy_event(start)
    gpu.destroy_event(end)
    gpu.destroy_stream(stream)


def test_a_graph_repeats_what_was_recorded(cudart):
    gpu = cuda.open_cuda()
    before = cudart.host_live_objects()
    stream, device, host = gpu.create_stream(), gpu.allocate(4), gpu.allocate_pinned(4)
    gpu.begin_capture(stream)
    gpu.copy_to_device(device, host, 4, stream)
    graph = gpu.end_capture(stream)
    gpu.launch_graph(graph, stream)
    gpu.synchronize(stream)
    gpu.destroy_graph(graph)
    gpu.free(device)
    gpu.free_pinned(host)
    gpu.destroy_stream(stream)
    assert cudart.host_live_objects() == before


def test_a_failed_recording_can_be_left(cudart):
    gpu = cuda.open_cuda()
    before = cudart.host_live_objects()
    stream = gpu.create_stream()
    gpu.begin_capture(stream)
    gpu.abort_capture(stream)
    gpu.abort_capture(stream)
    gpu.synchronize(stream)
    gpu.destroy_stream(stream)
    assert cudart.host_live_objects() == before


def test_a_failed_call_says_which_and_why(cudart):
    with pytest.raises(CudaError, match=r"^cudaFree failed: error \(cudaError 1\)$"):
        cuda.open_cuda().free(12345)


def test_full_memory_is_one_sentence(cudart):
    with pytest.raises(BackendUnavailable, match=r"memory is full \(cudaMalloc\)"):
        cuda.open_cuda().allocate(1 << 60)


def test_a_machine_without_a_gpu(cudart):
    cudart.host_set_devices(0)
    assert cuda.compute_capability() is None
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU answers .*no CUDA-capable device .*nvidia-smi"):
        cuda.open_cuda()


def test_a_machine_without_cuda(monkeypatch, fresh):
    monkeypatch.setenv("EDGEKD_CUDART", "libcudart-that-is-nowhere.so")
    assert cuda.compute_capability() is None
    with pytest.raises(BackendUnavailable, match="libcudart cannot be found; .*pip install nvidia-cuda-runtime"):
        cuda.open_cuda()


def test_a_library_that_is_too_old(monkeypatch, fresh):
    monkeypatch.setenv("EDGEKD_CUDART", "libm.so.6")
    with pytest.raises(BackendUnavailable, match=r"libm.so.6: .*cudaGetDeviceCount"):
        cuda.open_cuda()


def test_the_search_finds_system_libraries_first(monkeypatch):
    monkeypatch.delenv("EDGEKD_CUDART", raising=False)
    names = list(cuda._library_names())
    assert names[0] == "libcudart.so.13" and "libcudart.so.12" in names
    assert "/usr/local/cuda/lib64/libcudart.so" in names
