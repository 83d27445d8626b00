"""The C library's TensorRT module, compiled against the headers of three versions, on the functional stand-in."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

import fake_builder
import fake_library
import host_cuda
import numpy as np
import pytest
import stand_in
import tiny_kinds
import tiny_plans
from small_models import write_small_models

from edgekd.package_files import default_models
from edgekd.runtime import cuda
from edgekd.runtime.tensorrt_library import tensorrt_library

VERSIONS = ("8.6.1", "10.3.0", "11.0")

MUTANTS = {
    "nothing is changed": ("", ""),
    "the first run is recorded": ("bound.graph == nullptr && bound.has_run &&", "bound.graph == nullptr &&"),
    "a failed run is not noticed": ("if (!bound.context->enqueueV3(lane_->stream())) {",
                                    "bound.context->enqueueV3(lane_->stream()); if (false) {"),
    "a context gets no memory": ("(*bound.context, scratch.memory.get(),", "(*bound.context, nullptr,"),
    "the stream is not waited for": ('check_cuda(cudaStreamSynchronize(lane_->stream()), "finish a run");', ""),
    "a buffer is freed early": ("Bound& bound = bind(inputs, n_inputs);",
                                "Bound& bound = bind(inputs, n_inputs); tensors_[0].device.reset();"),
    "an input is not copied": ("if (inputs[i].device == nullptr) copy_in(inputs[i]);", ""),
    "an address is not a part of the key": ("int64_t(reinterpret_cast<intptr_t>(inputs[i].device))", "0"),
    "an output that stays is copied": ("if (output.stays) return;", ""),
    "an output that stays is the engine's own": ("found->device : tensor", "tensor.device.get() : tensor"),
    "a lane is not shared": ("beside != nullptr ? beside->lane_ :", "beside == this ? beside->lane_ :"),
    "device memory is never freed": ("{ cudaFree(memory); }", "{ (void)memory; }"),
    "a graph is never freed": ("{ cudaGraphExecDestroy(graph); }", "{ (void)graph; }"),
}  # fmt: skip


class Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p), ("n_dims", ctypes.c_uint32), ("dims", ctypes.c_int64 * 4),
        ("data", ctypes.c_void_p), ("bytes", ctypes.c_void_p), ("device", ctypes.c_void_p), ("stays", ctypes.c_int32),
    ]  # fmt: skip


class Bytes(ctypes.Structure):
    _fields_ = [("data", ctypes.c_char_p), ("size", ctypes.c_size_t)]


class Options(ctypes.Structure):
    _fields_ = [
        ("path", ctypes.c_char_p), ("precision", ctypes.c_char_p), ("n_threads", ctypes.c_uint32),
        ("files", ctypes.POINTER(Bytes)), ("n_files", ctypes.c_size_t), ("beside", ctypes.c_void_p),
    ]  # fmt: skip


ERROR = ctypes.c_char * 1024
POINTER = ctypes.c_void_p
REASON = ctypes.POINTER(ERROR)


class Backend(ctypes.Structure):
    """The table of src/backend.h."""

    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("compute_capability", ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_char_p, ctypes.c_size_t, REASON)),
        ("open", ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.POINTER(Options), ctypes.POINTER(POINTER), REASON)),
        ("clone", ctypes.CFUNCTYPE(ctypes.c_int32, POINTER, POINTER, ctypes.POINTER(POINTER), REASON)),
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


class Module:
    """A loaded backend module; every call that fails raises its sentence."""

    def __init__(self, path: Path) -> None:
        # Its own libcudart before that of NVIDIA, which torch has among the symbols of this process.
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOW | os.RTLD_DEEPBIND)
        library.edgekd_backend_entry.restype = ctypes.POINTER(Backend)
        self.table = library.edgekd_backend_entry().contents

    def open(self, path: Path, beside: POINTER | None = None) -> POINTER:
        engine, content = POINTER(), path.read_bytes()
        file = Bytes(content, len(content))
        options = Options(str(path).encode(), b"fp32", 0, ctypes.pointer(file), 1, beside)
        self.said(self.table.open, options, ctypes.byref(engine))
        return engine

    def clone(self, engine: POINTER, beside: POINTER | None = None) -> POINTER:
        copy = POINTER()
        self.said(self.table.clone, engine, beside, ctypes.byref(copy))
        return copy

    def run(self, engine: POINTER, x: Tensor, stays: bool = False) -> Tensor:
        outputs = Tensor(b"y", stays=stays)
        self.said(self.table.infer, engine, ctypes.byref(x), 1, ctypes.byref(outputs), 1)
        return outputs

    def double(self, engine: POINTER, x: np.ndarray | Tensor) -> np.ndarray:
        outputs = self.run(engine, x if isinstance(x, Tensor) else tensor_of(x))
        return host_cuda.view(outputs.data, np.float32, tuple(outputs.dims[: outputs.n_dims])).copy()

    def said(self, function, *arguments) -> None:
        error = ERROR()
        if function(*arguments, ctypes.byref(error)):
            raise RuntimeError(error.value.decode())


def tensor_of(x: np.ndarray) -> Tensor:
    return Tensor(b"x", 2, (ctypes.c_int64 * 4)(*x.shape), x.ctypes.data)


def one_feeds_another(module: Module, plan: Path, cudart) -> None:
    """What stays on the GPU is read there by an engine of the same lane: no copy, one stream, one scratch buffer."""
    start = cudart.host_device_bytes()
    first = module.open(plan)
    second = module.open(plan, beside=first)
    clone = module.clone(second, beside=first)
    for step in range(6):
        x = np.full((3, 4), step, np.float32)
        before, objects = [cudart.host_copied_bytes(kind) for kind in (1, 2)], cudart.host_live_objects()
        held = module.run(first, tensor_of(x), stays=True)
        assert not held.data and held.device
        held.name = b"x"
        for reader in (second, clone):
            np.testing.assert_array_equal(module.double(reader, held), 4 * x)
        copied = [cudart.host_copied_bytes(kind) - old for kind, old in zip((1, 2), before, strict=True)]
        assert copied == [x.nbytes, 2 * x.nbytes]
        np.testing.assert_array_equal(module.double(second, x), 2 * x)
    assert cudart.host_live_objects() == objects, "nothing grows"
    buffers, scratch = 2 * 16 * 4 * 4, 4096 + 16 * 1024
    assert cudart.host_device_bytes() - start == 3 * buffers + scratch
    for engine in (first, clone, second):
        module.table.close(engine)


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
    one_feeds_another(module, plan, cudart)
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
    x = np.ones((2, 4), np.float32)
    for nth in range(1, 6):  # two tensors when it is opened; scratch memory and two twins when it runs
        cudart.host_fail_allocation(nth)
        if nth < 3:
            with pytest.raises(RuntimeError, match=r"cannot allocate .*out of memory"):
                module.open(plan)
        else:
            engine = module.open(plan)
            with pytest.raises(RuntimeError, match=r"cannot allocate .*out of memory"):
                module.double(engine, x)
            np.testing.assert_array_equal(module.double(engine, x), 2 * x)
            module.table.close(engine)
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
    source = tmp_path / "backends" / fake_library.MODULE_SOURCE.name
    shutil.copytree(fake_library.MODULE_SOURCE.parent, source.parent)
    texts = {path: path.read_text() for path in (source, source.with_name("cuda_memory.h"))}
    assert sum(text.count(old) for text in texts.values()) == 1 or not old, f"the mutant's text is gone: {old}"
    for path, text in texts.items():
        path.write_text(text.replace(old, new) if old else text)
    module = Module(fake_library.compiled_module("10.3.0", source))
    if name == "nothing is changed":
        scenario(module, plan, cudart, n_runs=45)
        return
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        scenario(module, plan, cudart, n_runs=45)


@pytest.mark.tensorrt
@pytest.mark.parametrize("version", VERSIONS)
def test_bundles_of_every_kind_in_c(version, built, tmp_path):
    """Boxes and masks are those of Python on ONNX Runtime; embeddings stay on the device in C as well."""
    models = {kind: tiny_kinds.write_tiny_models(tmp_path / "models" / kind, kind) for kind in tiny_kinds.KINDS}
    bundles = {kind: stand_in.built(path, tmp_path / kind, version) for kind, path in models.items()}
    scenes, settings = tiny_kinds.scenes(), (stand_in.CONFIDENCE, stand_in.MAX_BOXES)
    job = stand_in.c_job(version, built / "prefix/lib/libedgekd.so")
    counted, found = stand_in.run(
        job, bundles, scenes, tmp_path, n_calls=200, confidence=settings[0], max_boxes=settings[1]
    )
    for kind, path in models.items():
        assert counted[kind]["left"] == [0, 0] and counted[kind]["graph_launches"] >= 195
        answers = stand_in.answers_of_onnx_runtime(path, tmp_path / "reference" / kind, scenes, *settings)
        for index, answer in enumerate(answers):
            np.testing.assert_allclose(found[f"{kind} {index} boxes"], answer.detections.xyxy, atol=0.5)
            masks = np.stack([answer.masks.full(row) for row in range(len(answer))])
            assert (found[f"{kind} {index} masks"] != masks).mean() < 1e-3
    per_call = [stand_in.bytes_per_call(n_boxes) for n_boxes in stand_in.MAX_BOXES]
    assert counted["sam"]["copied_per_call"] == per_call


@pytest.mark.tensorrt
def test_two_chains_of_the_default_size_in_c_fit_700_mb(built, tmp_path):
    """Inputs of 640 and 1024 px, 16 boxes per call, and the scratch memory that a real builder asked for."""
    models = tiny_kinds.write_tiny_models(tmp_path / "models", "sam", 640, 1024)
    bundle = stand_in.built(models, tmp_path / "bundle", "10.3.0", scratch=fake_builder.SCRATCH)
    job = stand_in.c_job("10.3.0", built / "prefix/lib/libedgekd.so")
    most, scene = 16, tiny_kinds.scenes()[:1]
    counted, _ = stand_in.run(job, {"sam": bundle}, scene, tmp_path, n_clones=1, confidence=0.05, max_boxes=[most])
    anchors, embeddings = 80 * 80 + 40 * 40 + 20 * 20, tiny_kinds.CHANNELS * 64 * 64
    detector = 3 * 640 * 640 + anchors * (64 + tiny_kinds.N_CLASSES)
    encoder, decoder = 3 * 1024 * 1024 + embeddings, embeddings + most * (4 + 256 * 256 + 1)
    scratch = max(fixed + each * most for fixed, each in fake_builder.SCRATCH.values())
    assert counted["sam"]["device_bytes"] == 2 * (scratch + 4 * (detector + encoder + decoder))
    weights = sum(path.stat().st_size for path in default_models().glob("*.onnx"))
    assert 400e6 < counted["sam"]["device_bytes"] + weights < 700e6


@pytest.mark.tensorrt
def test_the_shipped_networks_in_c(built, scene, tmp_path):
    models = write_small_models(tmp_path / "models")
    bundle = stand_in.built(models, tmp_path / "bundle", "10.3.0")
    (answer,) = stand_in.answers_of_onnx_runtime(models, tmp_path / "reference", scene[None], 0.05, [7])
    job = stand_in.c_job("10.3.0", built / "prefix/lib/libedgekd.so")
    counted, found = stand_in.run(job, {"sam": bundle}, scene[None], tmp_path)
    assert counted["sam"]["left"] == [0, 0]
    np.testing.assert_allclose(found["sam 0 boxes"], answer.detections.xyxy, atol=0.5)
    expected = np.stack([answer.masks.full(index) for index in range(len(answer))])
    assert (found["sam 0 masks"] != expected).mean() < 1e-4
