"""Mistakes in the TensorRT runner that a GPU would punish are found by the stand-in: each mutant fails one scenario."""

from __future__ import annotations

import gc
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from edgekd.runtime import cuda
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.engines import tensorrt
from edgekd.runtime.tensorrt_library import tensorrt_library

sys.path.insert(0, str(Path(__file__).parent))
import host_cuda
import tiny_plans

MUTANTS = {
    "nothing is changed": ("", ""),
    "the first run is recorded": ("bound.graph is None and bound.has_run and", "bound.graph is None and"),
    "a graph is never replayed": ("            bound.graph = cuda.end", "            cuda.end"),
    "a failed run is not noticed": (
        "if not context.execute_async_v3(self._lane.stream):", "if context.execute_async_v3(self._lane.stream) is None:"
    ),
    "a context gets no memory": ("        self._plan.memory.give(context, *self._lane.scratch())\n", ""),
    "the stream is not waited for": ("        cuda.synchronize(self._lane.stream)\n        if not", "        if not"),
    "another lane is not waited for": ("                cuda.synchronize(feed.lane.stream)", "                pass"),
    "a buffer is freed early": (
        "            self._finish()\n            return outputs",
        "            self._plan.cuda.free(self._buffers[0].device); self._finish()\n            return outputs",
    ),
    "a buffer is never freed": ("        resources.callback(plan.cuda.free, device)\n", ""),
    "a graph is never freed": ("        cuda.destroy_graph(bound.graph)", "        pass"),
    "an input is not copied": ("                cuda.copy_to_device(buffer.device,", "                (buffer.device,"),
    "all addresses are the engine's own": ("addresses.get(buffer.name, buffer.device)", "buffer.device"),
}  # fmt: skip


@pytest.fixture
def cudart(monkeypatch):
    library = host_cuda.use_host_cuda(monkeypatch)
    yield library
    library.host_reset()
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()


def mutated(old: str, new: str) -> type[tensorrt.TensorRtEngine]:
    """The engine class with one text replaced."""
    source = Path(tensorrt.__file__).read_text()
    assert source.count(old) >= 1, f"the mutant's text is gone: {old}"
    module = types.ModuleType("mutant")
    module.__dict__["__name__"] = module.__name__
    sys.modules["mutant"] = module
    exec(compile(source.replace(old, new) if old else source, "mutant", "exec"), module.__dict__)
    return module.TensorRtEngine


def scenario(engine_class, plan: Path, fake: host_cuda.FakeTensorRt, cudart) -> None:
    """Two engines in two lanes, several shapes, replays, a failure: all must be right, and memory must come back."""
    before, launches = cudart.host_live_objects(), cudart.host_graph_launches()
    first, second = engine_class.open(plan, rtx=False), engine_class.open(plan, rtx=False)
    bias = np.array([3], np.float16)
    for step in range(8):
        x = np.full((1 + step % 2, 4), step, np.float32)
        stays = first.infer_one({"x": x, "bias": bias}, "y")
        outputs = second.infer({"x": stays, "bias": bias})
        np.testing.assert_array_equal(outputs["y"], 4 * x + 9)
    assert cudart.host_graph_launches() - launches == 12
    fake.engines[0].n_failures = 1
    with pytest.raises(CudaError, match="the kernel failed"):
        first.infer({"x": np.zeros((7, 4), np.float32), "bias": bias})
    first.close()
    second.close()
    assert cudart.host_live_objects() == before


# What a mutant leaves behind may fail once more when it is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_in_the_runner_is_found(name, cudart, monkeypatch, tmp_path, caplog):
    fake = host_cuda.use_fake_tensorrt(monkeypatch, cudart)
    plan = tmp_path / "stage.engine"
    plan.write_bytes(tiny_plans.doubling_plan())
    engine_class = mutated(*MUTANTS[name])
    if name == "nothing is changed":
        scenario(engine_class, plan, fake, cudart)
        return
    with pytest.raises((AssertionError, CudaError, pytest.fail.Exception)):
        scenario(engine_class, plan, fake, cudart)
    cudart.host_reset()
    gc.collect()
