"""Pictures on a GPU, on the stand-ins: events order uploads, kernels and streams; each one that is left out shows."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from edgekd.graphs import IMAGES
from edgekd.model_set import CropInput, ImageInput
from edgekd.runtime import cuda, device_pictures
from edgekd.runtime.crops import cut
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.engines import DeviceArray
from edgekd.runtime.engines.lane import Lane
from edgekd.runtime.picture_kernels import open_kernels
from edgekd.runtime.preprocess import preprocess
from edgekd.runtime.tensorrt_library import tensorrt_library

sys.path.insert(0, str(Path(__file__).parent))
import host_cuda


@pytest.fixture
def cudart(monkeypatch):
    library = host_cuda.use_host_cuda(monkeypatch)
    yield library
    library.host_reset()
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()


@pytest.fixture
def driver(cudart, monkeypatch):
    return host_cuda.use_host_driver(monkeypatch)


class Network:
    """The memory of a network in a lane, which is all that pictures need of one."""

    def __init__(self, gpu, lane, n_bytes):
        self.gpu, self.lane, self.address = gpu, lane, gpu.allocate(n_bytes)

    def start(self, feeds):
        raise NotImplementedError

    def device_input(self, name, shape):
        return DeviceArray(self.address, shape, np.dtype("f4" if name == IMAGES else "u1"), self.lane, None)

    def content(self, dtype, shape):
        return host_cuda.view(self.address, dtype, shape).copy()


def scenario(pictures_class, cudart):
    """Two pictures and two sets of windows one right after the other, in a second lane: all inputs as on the host."""
    gpu, before = cuda.open_cuda(), cudart.host_live_objects()
    kernels, lanes = open_kernels(gpu), (Lane(gpu), Lane(gpu))
    for lane in lanes:
        lane.join(0)
    spec = ImageInput(
        height_px=32, width_px=32, place="centre", interpolation="area", mean=(0, 0, 0), std=(1, 1, 1), pad=(9, 9, 9)
    )
    crop = CropInput(side_px=8, window_factor=1, pad=(9, 9, 9))
    windows = np.array([[[0, 0, 9, 9], [5, 5, 45, 30]], [[20, 20, 33, 40], [-3, 7, 9, 19]]], np.int32)
    seen = np.random.default_rng(0).integers(0, 256, (2, 40, 52, 3), np.uint8)
    networks = [Network(gpu, lanes[1], 4 * 3 * 32 * 32) for _ in range(4)]
    ours = pictures_class(gpu, kernels, lanes[0])
    for network, picture in zip(networks, seen, strict=False):
        ours.take(picture)
        ours.letterbox(spec, network, IMAGES)
    for network, chosen in zip(networks[2:], windows, strict=True):
        ours.crops(chosen, crop, network)
    gpu.synchronize(lanes[1].stream)
    for network, picture in zip(networks, seen, strict=False):
        expected = preprocess(picture, spec)[0]
        assert np.abs(network.content(np.float32, expected.shape) - expected).max() <= 1
    for network, chosen in zip(networks[2:], windows, strict=True):
        expected = cut(seen[1], chosen, crop)
        assert np.abs(network.content(np.uint8, expected.shape).astype(int) - expected).max() <= 1
    ours.close()
    ours.close()
    for network in networks:
        gpu.free(network.address)
    for lane in lanes:
        lane.leave()
    assert cudart.host_live_objects() == before


MUTANTS = {
    "nothing is changed": ("", ""),
    "the upload is not waited for": (
        "            self._cuda.wait_event(lane.stream, self._uploaded)",
        "            pass",
    ),
    "the last picture is overwritten": ("            self._cuda.synchronize_event(event)\n", "            pass\n"),
    "the windows are overwritten": ("        self._cuda.synchronize_event(self._reads[to.lane])", "        pass"),
    "the picture is never freed": ("                resources.callback(memory.close)", "                pass"),
    "an event is never freed": ("            resources.callback(cuda.destroy_event, self._uploaded)\n", ""),
    "a lane is never left": ("            self._resources.callback(lane.leave)\n", ""),
}  # fmt: skip


def mutated(old, new):
    source = Path(device_pictures.__file__).read_text()
    assert source.count(old) == 1 or not old, f"the mutant's text is gone: {old}"
    module = types.ModuleType("mutant_pictures")
    sys.modules["mutant_pictures"] = module
    exec(compile(source.replace(old, new) if old else source, "mutant_pictures", "exec"), module.__dict__)
    return module.DevicePictures


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_in_the_order_of_events_is_found(name, integrated, cudart, driver):
    if integrated and name == "the upload is not waited for":
        pytest.skip("nothing is uploaded on an integrated GPU")
    cudart.host_set_integrated(integrated)
    if name == "nothing is changed":
        scenario(mutated(*MUTANTS[name]), cudart)
        return
    with pytest.raises((AssertionError, CudaError)):
        scenario(mutated(*MUTANTS[name]), cudart)
