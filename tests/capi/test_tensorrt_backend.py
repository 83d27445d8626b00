"""The C library's TensorRT module, compiled against the headers of three versions, on the functional stand-in."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import fake_builder
import fake_library
import host_cuda
import numpy as np
import pytest
import tiny_plans
from small_models import write_small_models

from edgekd.deploy.build import BuildOptions, build_bundle
from edgekd.runtime import cuda
from edgekd.runtime.chain import Chain, ChainOptions
from edgekd.runtime.detect import DetectOptions
from edgekd.runtime.tensorrt_library import tensorrt_library

OPTIONS = ChainOptions(DetectOptions(confidence=0.05, max_boxes=7))
VERSIONS = {"8.6.1": "8.6.1", "10.3.0": "10.3.0", "11.0": "11.0.0"}

MUTANTS = {
    "nothing is changed": ("", ""),
    "the first run is recorded": ("bound.graph == nullptr && bound.has_run &&", "bound.graph == nullptr &&"),
    "a failed run is not noticed": ("if (!bound.context->enqueueV3(stream_.get())) {",
                                    "bound.context->enqueueV3(stream_.get()); if (false) {"),
    "a context gets no memory": ("give_memory(*bound.context, scratch_.get(),", "give_memory(*bound.context, nullptr,"),
    "the stream is not waited for": ('check(cudaStreamSynchronize(stream_.get()), "finish a run");', ""),
    "a buffer is freed early": ("Bound& bound = bind(inputs, n_inputs);",
                                "Bound& bound = bind(inputs, n_inputs); tensors_[0].device.reset();"),
    "device memory is never freed": ("{ cudaFree(memory); }", "{ (void)memory; }"),
}  # fmt: skip


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("n_dims", ctypes.c_uint32), ("dims", ctypes.c_int64 * 4), ("data", ctypes.c_void_p)
    ]  # fmt: skip


class Options(ctypes.Structure):
    _fields_ = [("path", ctypes.c_char_p), ("precision", ctypes.c_char_p), ("n_threads", ctypes.c_uint32)]


ERROR = ctypes.c_char * 1024
POINTER = ctypes.c_void_p
REASON = ctypes.POINTER(ERROR)


class Backend(ctypes.Structure):
    """The table of src/backend.h."""

    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("compute_capability", ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_size_t, REASON)),
        ("open", ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(Options), ctypes.POINTER(POINTER), REASON)),
        ("clone", ctypes.CFUNCTYPE(ctypes.c_int32, POINTER, ctypes.POINTER(POINTER), REASON)),
        ("infer", ctypes.CFUNCTYPE(
            ctypes.c_int32, POINTER, ctypes.POINTER(Tensor), ctypes.c_size_t, ctypes.POINTER(Tensor), ctypes.c_size_t,
            REASON,
        )),
        ("close", ctypes.CFUNCTYPE(None, POINTER)),
    ]  # fmt: skip


@pytest.fixture
def cudart(monkeypatch):
    monkeypatch.setenv("EDGEKD_FAKE_ORT", fake_library.onnxruntime_library())
    library = host_cuda.use_host_cuda(monkeypatch)
    yield library
    library.host_reset()
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_small_models(tmp_path_factory.mktemp("models") / "small")


class Module:
    """A loaded backend module; every call that fails raises its sentence."""

    def __init__(self, path: Path) -> None:
        library = ctypes.CDLL(str(path))
        library.edgekd_backend_entry.restype = ctypes.POINTER(Backend)
        self.table = library.edgekd_backend_entry().contents

    def open(self, path: Path) -> POINTER:
        engine = POINTER()
        self.said(self.table.open, Options(str(path).encode(), b"fp32", 0), ctypes.byref(engine))
        return engine

    def clone(self, engine: POINTER) -> POINTER:
        copy = POINTER()
        self.said(self.table.clone, engine, ctypes.byref(copy))
        return copy

    def double(self, engine: POINTER, x: np.ndarray) -> np.ndarray:
        inputs = Tensor(b"x", 2, (ctypes.c_int64 * 4)(*x.shape), x.ctypes.data)
        outputs = Tensor(b"y")
        self.said(self.table.infer, engine, ctypes.byref(inputs), 1, ctypes.byref(outputs), 1)
        return host_cuda.view(outputs.data, np.float32, tuple(outputs.dims[: outputs.n_dims])).copy()

    def said(self, function, *arguments) -> None:
        error = ERROR()
        if function(*arguments, ctypes.byref(error)):
            raise RuntimeError(error.value.decode())


def scenario(module: Module, plan: Path, cudart, n_runs: int) -> None:
    """An engine and four clones, several shapes, replays, a run that fails: all right, and memory comes back."""
    before, launches = (cudart.host_live_objects(), cudart.host_device_bytes()), cudart.host_graph_launches()
    engines = [module.open(plan)]
    engines += [module.clone(engines[0]) for _ in range(4)]
    for step in range(n_runs):
        x = np.full((1 + step // 5 % 3, 4), step, np.float32)
        np.testing.assert_array_equal(module.double(engines[step % 5], x), 2 * x)
    assert cudart.host_graph_launches() - launches == n_runs - 3 * 5
    for engine in engines:
        module.table.close(engine)
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == before
    cudart.host_fail_enqueues(1)
    engine = module.open(plan)
    with pytest.raises(RuntimeError, match="TensorRT cannot run the plan"):
        module.double(engine, np.zeros((2, 4), np.float32))
    module.table.close(engine)


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "stage.engine"
    path.write_bytes(tiny_plans.float_plan())
    return path


@pytest.mark.tensorrt
@pytest.mark.parametrize("version", VERSIONS)
def test_ten_thousand_calls_leave_memory_as_it_was(version, plan, cudart):
    scenario(Module(fake_library.compiled_module(version)), plan, cudart, n_runs=10_000)


@pytest.mark.tensorrt
def test_a_damaged_plan_and_full_memory_are_sentences(plan, cudart, tmp_path):
    module = Module(fake_library.compiled_module("10.3.0"))
    before = cudart.host_live_objects()
    damaged = tmp_path / "damaged.engine"
    damaged.write_bytes(b"garbage")
    with pytest.raises(RuntimeError, match=r"cannot load .*damaged.engine \(the magic tag does not match"):
        module.open(damaged)
    for nth in range(1, 6):
        cudart.host_fail_allocation(nth)
        with pytest.raises(RuntimeError, match=r"cannot allocate .*out of memory"):
            module.open(plan)
        cudart.host_reset()
        assert cudart.host_live_objects() == before
    plan.write_bytes(tiny_plans.float_plan(shares_profiles=False))
    engine = module.open(plan)
    with pytest.raises(RuntimeError, match="a shape outside of its profile"):
        module.double(engine, np.zeros((2, 4), np.float32))
    module.table.close(engine)


@pytest.mark.tensorrt
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_in_the_module_is_found(name, plan, cudart, tmp_path):
    old, new = MUTANTS[name]
    text = fake_library.MODULE_SOURCE.read_text()
    assert text.count(old) >= 1, f"the mutant's text is gone: {old}"
    source = tmp_path / "mutant.cpp"
    source.write_text(text.replace(old, new) if old else text)
    module = Module(fake_library.compiled_module("10.3.0", source))
    if name == "nothing is changed":
        scenario(module, plan, cudart, n_runs=45)
        return
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        scenario(module, plan, cudart, n_runs=45)


@pytest.mark.tensorrt
@pytest.mark.parametrize("version", VERSIONS)
def test_c_and_python_answer_alike(version, models, built, scene, cudart, monkeypatch, tmp_path):
    folder = tmp_path / "bundle"
    fake_builder.use_building_tensorrt(monkeypatch, cudart, VERSIONS[version])
    build_bundle(models, folder, BuildOptions(backend="tensorrt", precision="fp32"), lambda line: None)
    with Chain.open(folder) as python:
        expected = python(scene, OPTIONS)
    np.save(tmp_path / "picture.npy", scene)
    modules, result = fake_library.compiled_module(version).parent, tmp_path / "result.npz"
    command = [sys.executable, str(Path(__file__).with_name("run_c_library.py"))]
    command += map(str, (built / "prefix/lib/libedgekd.so", modules, folder, tmp_path / "picture.npy", result))
    root = str(Path(__file__).parents[2])
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": root})
    assert done.returncode == 0, done.stderr
    found = np.load(result)
    assert found["left"] == 0 and found["graphs"] > 0
    for boxes, masks in zip(found["boxes"], found["masks"], strict=True):
        np.testing.assert_allclose(boxes, expected.detections.xyxy, atol=0.5)
        for index in range(len(expected)):
            assert (masks[index] != expected.masks.full(index)).mean() < 1e-4
