"""Buffers, streams, contexts and graphs of the TensorRT engine, executed on a CPU.

CUDA is host_cudart.c, TensorRT a stand-in with ONNX Runtime behind it; no GPU and no TensorRT ran any of it.
"""

from __future__ import annotations

import gc
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import BackendUnavailable, BundleError, InputError
from edgekd.runtime import cuda
from edgekd.runtime.cuda_calls import CudaError
from edgekd.runtime.engines.lane import Lane
from edgekd.runtime.engines.tensorrt import MAX_SHAPES, TensorRtEngine
from edgekd.runtime.engines.tensorrt_plan import Plan
from edgekd.runtime.tensorrt_library import tensorrt_library

sys.path.insert(0, str(Path(__file__).parent))
import fake_plan
import host_cuda
import tiny_plans


@pytest.fixture
def cudart(monkeypatch):
    yield host_cuda.use_host_cuda(monkeypatch)
    cuda.open_cuda.cache_clear()


@pytest.fixture(params=["8.6.1", "10.3.0"])
def fake(monkeypatch, cudart, request):
    yield host_cuda.use_fake_tensorrt(monkeypatch, cudart, request.param)
    tensorrt_library.cache_clear()


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "stage.engine"
    path.write_bytes(tiny_plans.doubling_plan())
    return path


def feeds_of(n_rows, seed=0):
    x = np.random.default_rng(seed).standard_normal((n_rows, 4)).astype(np.float32)
    return {"x": x, "bias": np.array([seed % 7], np.float16)}


def check(engine, n_rows, seed=0):
    feeds = feeds_of(n_rows, seed)
    outputs = engine.infer(feeds)
    np.testing.assert_array_equal(outputs["y"], 2 * feeds["x"] + feeds["bias"].astype(np.float32))
    np.testing.assert_array_equal(outputs["rows"], np.arange(n_rows))
    return outputs


@pytest.mark.parametrize("use_graphs", [True, False])
@settings(max_examples=20, deadline=None)
@given(sizes=st.lists(st.integers(1, 16), min_size=1, max_size=30))
def test_any_sequence_of_shapes_is_right(use_graphs, sizes):
    with pytest.MonkeyPatch.context() as monkeypatch:
        cudart = host_cuda.use_host_cuda(monkeypatch)
        before = cudart.host_live_objects()
        host_cuda.use_fake_tensorrt(monkeypatch, cudart)
        engine_ = host_cuda.SizedEngine(cudart, None, fake_plan.read_plan(tiny_plans.doubling_plan()))
        shared = Plan(tensorrt_library(False), cuda.open_cuda(), None, engine_)
        engine = TensorRtEngine(shared, use_graphs, Lane(shared.cuda))
        for seed, n_rows in enumerate(sizes):
            check(engine, n_rows, seed)
        engine.close()
        assert cudart.host_live_objects() == before
    tensorrt_library.cache_clear()
    cuda.open_cuda.cache_clear()


def test_the_second_run_of_a_shape_becomes_a_graph(fake, plan, cudart):
    engine = TensorRtEngine.open(plan, rtx=False)
    launches = cudart.host_graph_launches()
    for seed in range(5):
        check(engine, 3, seed)
    assert cudart.host_graph_launches() - launches == 4
    context = fake.engines[0].contexts[-1]
    assert len(context.callbacks) == 2, "one plain run and one recording"
    check(engine, 5)
    assert cudart.host_graph_launches() - launches == 4
    engine.close()


def test_without_graphs_every_run_is_plain(fake, plan, cudart):
    engine = TensorRtEngine.open(plan, rtx=False, use_graphs=False)
    launches = cudart.host_graph_launches()
    for seed in range(3):
        check(engine, 3, seed)
    assert cudart.host_graph_launches() == launches
    engine.close()


def test_a_recording_that_fails_is_said_and_the_plan_still_runs(fake, plan, cudart, caplog):
    cudart.host_fail_captures(1)
    engine = TensorRtEngine.open(plan, rtx=False)
    for seed in range(4):
        check(engine, 3, seed)
    assert [record.message[:38] for record in caplog.records] == ["this plan runs without CUDA graphs: cu"]
    engine.close()


def test_a_kernel_that_refuses_to_be_recorded_leaves_the_stream_usable(fake, plan, cudart, caplog):
    engine = TensorRtEngine.open(plan, rtx=False)
    check(engine, 3)
    live = cudart.host_live_objects()
    fake.engines[0].n_failures = 1
    check(engine, 3, seed=1)
    check(engine, 3, seed=2)
    assert [record.message[:33] for record in caplog.records] == ["this plan runs without CUDA graph"]
    assert cudart.host_live_objects() == live
    engine.close()


def test_times_are_those_of_the_last_run(fake, plan):
    engine = TensorRtEngine.open(plan, rtx=False)
    assert engine.times_ms == {}
    check(engine, 3)
    assert set(engine.times_ms) == {"h2d", "gpu_compute", "d2h"}
    assert all(0 <= value < 1000 for value in engine.times_ms.values())
    engine.close()


def test_outputs_are_overwritten_by_the_next_run_without_new_memory(fake, plan, cudart):
    engine = TensorRtEngine.open(plan, rtx=False)
    first = check(engine, 3, seed=1)["y"]
    live = cudart.host_live_objects()
    second = check(engine, 3, seed=2)["y"]
    assert first.ctypes.data == second.ctypes.data
    for seed in range(20):
        check(engine, 3, seed)
    assert cudart.host_live_objects() == live + 1, "the graph of this shape and nothing else"
    engine.close()


def test_shapes_beyond_the_limit_push_out_the_one_unused_for_longest(fake, plan, cudart):
    engine = TensorRtEngine.open(plan, rtx=False)
    for n_rows in range(1, MAX_SHAPES + 1):
        check(engine, n_rows)
        check(engine, n_rows)
    live = cudart.host_live_objects()
    check(engine, 1)
    check(engine, MAX_SHAPES + 1)
    assert cudart.host_live_objects() == live - 1, "a graph went, and the new shape has none yet"
    contexts = len(fake.engines[0].contexts)
    check(engine, 1)
    assert len(fake.engines[0].contexts) == contexts, "the shape used last stayed"
    engine.close()


def test_clones_run_in_threads_and_outlive_each_other(fake, plan, cudart):
    before = cudart.host_live_objects()
    engine = TensorRtEngine.open(plan, rtx=False)
    clones = [engine.clone() for _ in range(3)]
    assert len(fake.engines) == 1, "the weights are shared"
    engine.close()
    failures = []

    def work(clone, seed):
        try:
            for step in range(50):
                check(clone, 1 + step % 7, seed + step)
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(clone, 100 * index)) for index, clone in enumerate(clones)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for clone in clones:
        clone.close()
    assert cudart.host_live_objects() == before


def test_closing_twice_or_never_gives_everything_back(fake, plan, cudart):
    before = cudart.host_live_objects()
    engine = TensorRtEngine.open(plan, rtx=False)
    check(engine, 2)
    engine.close()
    engine.close()
    assert cudart.host_live_objects() == before
    forgotten = TensorRtEngine.open(plan, rtx=False)
    check(forgotten, 2)
    check(forgotten, 2)
    del forgotten
    gc.collect()
    assert cudart.host_live_objects() == before


def test_a_plan_that_is_too_large_frees_what_it_had(fake, tmp_path, cudart):
    before = cudart.host_live_objects()
    path = tmp_path / "huge.engine"
    path.write_bytes(tiny_plans.doubling_plan(1 << 56))
    with pytest.raises(BackendUnavailable, match="memory is full"):
        TensorRtEngine.open(path, rtx=False)
    assert cudart.host_live_objects() == before


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x": np.zeros((17, 4), np.float32)}, r"input x has shape \(17, 4\), outside of the plan's profile .*16, 4"),
        ({"x": np.zeros((0, 4), np.float32)}, r"input x has shape \(0, 4\)"),
        ({"x": np.zeros((3, 5), np.float32)}, r"input x has shape \(3, 5\)"),
        ({"x": np.zeros((3, 4), np.float64)}, "input x has dtype float64, expected float32"),
        ({"z": np.zeros(1, np.float32)}, "expected the inputs x, bias"),
    ],
)
def test_feeds_that_do_not_fit_are_refused(change, reason, fake, plan):
    engine = TensorRtEngine.open(plan, rtx=False)
    with pytest.raises(InputError, match=reason):
        engine.infer(feeds_of(3) | change)
    check(engine, 3)
    engine.close()


def test_a_failing_kernel_is_reported_with_the_librarys_words(fake, plan):
    engine = TensorRtEngine.open(plan, rtx=False)
    fake.engines[0].n_failures = 1
    with pytest.raises(CudaError, match="cannot run the plan: the kernel failed badly"):
        engine.infer(feeds_of(3))
    check(engine, 3)
    engine.close()


@pytest.mark.parametrize("content", [b"garbage", b"vtrt plan of TensorRT-RTX"])
def test_a_damaged_plan_is_one_sentence(content, fake, tmp_path):
    path = tmp_path / "stage.engine"
    path.write_bytes(content)
    with pytest.raises(
        BundleError, match=r"cannot load .*stage.engine \(the magic tag does not match\): .* build-engine"
    ):
        TensorRtEngine.open(path, rtx=False)


def test_a_missing_or_empty_plan_is_one_sentence(fake, tmp_path):
    with pytest.raises(BundleError, match="missing or empty"):
        TensorRtEngine.open(tmp_path / "absent.engine", rtx=False)
    (tmp_path / "empty.engine").touch()
    with pytest.raises(BundleError, match="missing or empty"):
        TensorRtEngine.open(tmp_path / "empty.engine", rtx=False)


def test_a_runtime_that_does_not_start_is_one_sentence(fake, plan, monkeypatch):
    def null(logger):
        logger.log(1, "the driver is too old")
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(fake, "Runtime", null)
    with pytest.raises(BackendUnavailable, match="TensorRT cannot start .the driver is too old.; .*edgekd doctor"):
        TensorRtEngine.open(plan, rtx=False)


def test_without_a_gpu_it_says_so(fake, plan, cudart):
    cudart.host_set_devices(0)
    with pytest.raises(BackendUnavailable, match="no NVIDIA GPU answers"):
        TensorRtEngine.open(plan, rtx=False)


def test_a_tensor_type_that_numpy_lacks_is_refused(fake, plan, monkeypatch, cudart):
    before = cudart.host_live_objects()
    plan.write_bytes(plan.read_bytes().replace(b"rows INT32", b"rows FP8"))
    with pytest.raises(BundleError, match="tensor rows of the plan is FP8, expected one of FLOAT"):
        TensorRtEngine.open(plan, rtx=False)
    assert cudart.host_live_objects() == before


def test_all_contexts_of_a_lane_use_one_scratch_buffer(fake, plan, cudart):
    before = cudart.host_device_bytes()
    engine = TensorRtEngine.open(plan, rtx=False)
    beside = engine.clone(beside=engine)
    apart = engine.clone()
    buffers = 16 * 4 * 4 * 2 + 2 + 16 * 4
    assert cudart.host_device_bytes() - before == 3 * buffers, "scratch memory is not there before the first run"
    for n_rows in (1, 3, 16):
        for each in (engine, beside, apart):
            check(each, n_rows)
            check(each, n_rows)
    scratch = fake.engines[0].scratch_bytes
    assert cudart.host_device_bytes() - before == 3 * buffers + 2 * scratch
    for each in (engine, beside, apart):
        each.close()
    assert cudart.host_device_bytes() == before


def test_a_greedier_plan_in_the_lane_gets_a_larger_buffer(fake, plan, cudart, tmp_path):
    engine = TensorRtEngine.open(plan, rtx=False)
    check(engine, 3)
    check(engine, 3)
    path = tmp_path / "greedy.engine"
    path.write_bytes(tiny_plans.doubling_plan(scratch=(1 << 20, 0)))
    greedy = TensorRtEngine.open(path, rtx=False, beside=engine)
    check(greedy, 5)
    check(engine, 3)
    greedy.close()
    check(engine, 4)
    engine.close()


@pytest.mark.parametrize("own_lane", [False, True])
def test_an_output_feeds_another_engine_without_the_host(own_lane, fake, plan, cudart):
    first = TensorRtEngine.open(plan, rtx=False)
    second = TensorRtEngine.open(plan, rtx=False, beside=None if own_lane else first)
    for seed in range(4):
        feeds = feeds_of(3, seed)
        before = [cudart.host_copied_bytes(kind) for kind in (1, 2)]
        stays = first.infer_one(feeds, "y")
        assert [cudart.host_copied_bytes(kind) for kind in (1, 2)] == [before[0] + 3 * 16 + 2, before[1]]
        outputs = second.infer({"x": stays, "bias": feeds["bias"]})
        assert cudart.host_copied_bytes(1) == before[0] + 3 * 16 + 2 + 2, "the bias alone came from the host"
        bias = feeds["bias"].astype(np.float32)
        np.testing.assert_array_equal(outputs["y"], 2 * (2 * feeds["x"] + bias) + bias)
        np.testing.assert_array_equal(np.asarray(stays), 2 * feeds["x"] + bias)
        assert set(first.times_ms) == {"h2d", "gpu_compute", "d2h"}
    first.close()
    second.close()


def test_a_run_that_nobody_waited_for_may_be_closed_or_followed(fake, plan, cudart):
    before = cudart.host_live_objects()
    engine = TensorRtEngine.open(plan, rtx=False)
    engine.infer_one(feeds_of(3), "y")
    check(engine, 3, seed=5)
    engine.infer_one(feeds_of(4), "y")
    engine.close()
    assert cudart.host_live_objects() == before


def test_many_runs_of_clones_leave_memory_as_it_was(fake, plan, cudart):
    before = cudart.host_live_objects(), cudart.host_device_bytes()
    engine = TensorRtEngine.open(plan, rtx=False)
    clones = [engine, *(engine.clone() for _ in range(4))]
    for clone in clones:
        check(clone, 4)
        check(clone, 4)
    during = cudart.host_device_bytes()
    for step in range(2000):
        check(clones[step % 5], 4, step)
    assert cudart.host_device_bytes() == during
    for clone in clones:
        clone.close()
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == before


@pytest.mark.parametrize("nth", range(1, 7))
def test_full_memory_at_any_allocation_gives_everything_back(nth, fake, plan, cudart):
    before = cudart.host_live_objects()
    cudart.host_fail_allocation(nth)
    with pytest.raises(BackendUnavailable, match="memory is full"):
        check(TensorRtEngine.open(plan, rtx=False), 3)
    gc.collect()
    cudart.host_reset()
    assert cudart.host_live_objects() == before


def test_a_broken_gpu_is_said_in_every_call_that_follows(fake, plan, cudart):
    engine = TensorRtEngine.open(plan, rtx=False)
    check(engine, 3)
    cudart.host_break()
    for _ in range(2):
        with pytest.raises(CudaError, match="illegal memory access"):
            engine.infer(feeds_of(3))
    cudart.host_reset()
    engine.close()


def test_a_plan_that_owns_its_profile_is_refused_with_the_librarys_words(fake, plan):
    plan.write_bytes(tiny_plans.doubling_plan(shares_profiles=False))
    engine = TensorRtEngine.open(plan, rtx=False)
    with pytest.raises(InputError, match="outside of the plan's profile"):
        check(engine, 3)
    engine.close()


def test_rtx_compiles_before_it_records(monkeypatch, cudart, plan):
    fake = host_cuda.use_fake_tensorrt(monkeypatch, cudart, "rtx")
    engine = TensorRtEngine.open(plan, rtx=True)
    launches = cudart.host_graph_launches()
    for seed in range(4):
        check(engine, 3, seed)
    assert cudart.host_graph_launches() - launches == 3
    monkeypatch.setattr(host_cuda.RtxContext, "is_stream_capturable", lambda self, stream: False)
    for seed in range(3):
        check(engine, 5, seed)
    assert cudart.host_graph_launches() - launches == 3
    assert len(fake.engines) == 1
    engine.close()
    tensorrt_library.cache_clear()


def test_ten_thousand_calls_of_five_engines_leave_memory_as_it_was(plan, cudart, monkeypatch):
    """An engine and four clones: once every shape has its graph nothing grows, and in the end all comes back."""
    host_cuda.use_fake_tensorrt(monkeypatch, cudart)
    before = cudart.host_live_objects(), cudart.host_device_bytes()
    engines = [TensorRtEngine.open(plan, rtx=False)]
    engines += [engines[0].clone() for _ in range(4)]
    feeds = [feeds_of(n) for n in (1, 5, 16)]
    expected = [2 * feed["x"] + feed["bias"].astype(np.float32) for feed in feeds]
    for step in range(10_000):
        outputs = engines[step % 5].infer(feeds[step // 5 % 3])
        if step == 29:
            settled = cudart.host_live_objects(), cudart.host_device_bytes()
        if step % 97 == 0:
            np.testing.assert_array_equal(outputs["y"], expected[step // 5 % 3])
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == settled
    assert cudart.host_device_peak() == settled[1]
    for engine in engines:
        engine.close()
    assert (cudart.host_live_objects(), cudart.host_device_bytes()) == before
    tensorrt_library.cache_clear()
