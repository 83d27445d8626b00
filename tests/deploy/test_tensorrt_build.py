"""Plans: TensorRT-RTX really builds on a CPU without a GPU; the other branches are driven through a recording stand-in.

No plan is run here: that needs a GPU. `benchmarks/verify_tensorrt.py` does it on a device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from edgekd.deploy.tensorrt_build import PlanOptions, build_plan
from edgekd.errors import BackendUnavailable, BuildError
from edgekd.runtime.tensorrt_library import library_version, tensorrt_library

sys.path.insert(0, str(Path(__file__).parent))
import onnx_graphs

BATCH = {"x": ((1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))}
GRAPHS = {
    "convolution": onnx_graphs.convolution,
    "attention": onnx_graphs.attention,
    "position_encoding": onnx_graphs.position_encoding,
    "quantized_convolution": onnx_graphs.quantized_convolution,
}
PROFILES = {"convolution": BATCH, "position_encoding": {"boxes": ((1, 2), (8, 2), (32, 2))}}


@pytest.fixture
def rtx():
    """Skip where TensorRT-RTX is not installed."""
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed: pip install tensorrt-rtx")


@pytest.fixture
def no_gpu(monkeypatch):
    """Say that there is no GPU, whatever the machine has."""
    monkeypatch.setattr("edgekd.deploy.tensorrt_versions.present_compute_capability", lambda: None)


def saved(name, folder):
    path = folder / f"{name}.onnx"
    onnx.save(GRAPHS[name](), path)
    return path


def options(precision="fp32", **changes):
    return PlanOptions(**{"rtx": True, "compute_capability": "8.9", "precision": precision} | changes)


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("convolution", "fp32"),
        ("convolution", "fp16"),
        ("attention", "fp16"),
        ("position_encoding", "fp16"),
        ("quantized_convolution", "int8"),
    ],
)
def test_rtx_builds_without_a_gpu(name, precision, rtx, no_gpu, tmp_path):
    plan = build_plan(saved(name, tmp_path), options(precision, profiles=PROFILES.get(name, {})))
    import tensorrt_rtx

    # The plan is the library's own format from the first byte on, which is what trtexec needs.
    header = tensorrt_rtx.Runtime(tensorrt_library(rtx=True).logger).engine_header_size
    assert plan[:4] == b"vtrt" and len(plan) > header
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.onnx"]


@pytest.mark.tensorrt
@pytest.mark.parametrize("compute_capability", ["7.5", "8.6", "12.0"])
def test_rtx_builds_for_several_gpus(compute_capability, rtx, tmp_path):
    limits = {"workspace_bytes": 1 << 28, "optimization_level": 2}
    path = saved("attention", tmp_path)
    assert len(build_plan(path, options("fp16", compute_capability=compute_capability, **limits))) > 1000


@pytest.mark.tensorrt
def test_a_build_that_the_library_gives_up_is_one_sentence(rtx, tmp_path):
    """Turing has no float32 matrix product in TensorRT-RTX: `build_serialized_network` returns None."""
    with pytest.raises(BuildError, match="cannot build the engine .*FP32 GEMM.*; try another `precision`") as caught:
        build_plan(saved("attention", tmp_path), options(compute_capability="7.5"))
    assert "\n" not in str(caught.value)


@pytest.mark.tensorrt
@pytest.mark.parametrize("compute_capability", ["8.7", "9.0", "10.0", "89"])
def test_rtx_refuses_other_gpus(compute_capability, rtx, tmp_path):
    with pytest.raises(BuildError, match=rf"{compute_capability}, it knows 7.5, 8.0, 8.6, 8.9.*--backend tensorrt$"):
        build_plan(saved("convolution", tmp_path), options(compute_capability=compute_capability))


@pytest.mark.tensorrt
def test_rtx_without_a_target_and_a_gpu_asks_for_one(rtx, no_gpu, tmp_path):
    with pytest.raises(BackendUnavailable, match="give its `compute_capability`"):
        build_plan(saved("convolution", tmp_path), options(compute_capability=None))


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("profiles", "reason"),
    [
        ({}, "input x has the dynamic shape .* give it a shape profile"),
        ({"y": ((1,),) * 3}, "no input y, it has x"),
        ({"x": ((1, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 17))}, r"gives input x the shape \(4, 3, 16, 17\)"),
        ({"x": ((1, 3, 16), (2, 3, 16), (4, 3, 16))}, r"gives input x the shape \(1, 3, 16\)"),
        ({"x": ((4, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))}, "expected 1 <= min <= opt <= max"),
        ({"x": ((0, 3, 16, 16), (2, 3, 16, 16), (4, 3, 16, 16))}, "expected 1 <= min <= opt <= max"),
    ],
)
def test_a_profile_that_does_not_fit_is_refused(profiles, reason, rtx, tmp_path):
    with pytest.raises(BuildError, match=reason):
        build_plan(saved("convolution", tmp_path), options(profiles=profiles))


@pytest.mark.tensorrt
def test_the_parsers_error_names_the_node(rtx, tmp_path):
    model = onnx_graphs.convolution()
    model.graph.node[1].CopyFrom(onnx.helper.make_node("Multinomial", ["c"], ["y"], name="draw", dtype=6))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        BuildError, match=r"^TensorRT cannot read .*graph.onnx \(.* at node draw\); export the graph again$"
    ):
        build_plan(path, options(profiles=BATCH))


@pytest.mark.tensorrt
def test_operators_of_other_domains_are_refused(rtx, tmp_path):
    model = onnx_graphs.convolution()
    model.graph.node[1].domain = "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    path = tmp_path / "graph.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="operators of com.microsoft"):
        build_plan(path, options(profiles=BATCH))


@pytest.mark.tensorrt
@pytest.mark.parametrize(
    ("name", "precision", "reason"),
    [
        ("convolution", "int8", "no Q/DQ pairs and precision int8 .* edgekd calibrate"),
        ("quantized_convolution", "fp16", "has Q/DQ pairs and precision fp16 .* `precision` int8"),
    ],
)
def test_precision_must_fit_the_graph(name, precision, reason, rtx, tmp_path):
    with pytest.raises(BuildError, match=reason):
        build_plan(saved(name, tmp_path), options(precision, profiles=PROFILES.get(name, {})))


@pytest.mark.tensorrt
def test_version_is_the_librarys(rtx):
    import tensorrt_rtx

    assert library_version(rtx=True) == tensorrt_rtx.__version__


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"precision": "bf16"}, "precision bf16 was asked for"),
        ({"optimization_level": 6}, "optimization_level is 6, expected 0 to 5"),
        ({"workspace_bytes": 0}, "workspace_bytes is 0, expected more than 0"),
        ({"timing_cache": Path("cache")}, "no timing cache"),
    ],
)
def test_options_that_no_library_can_serve_are_refused(changes, reason):
    with pytest.raises(BuildError, match=reason):
        options(**changes)


def test_a_missing_library_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    tensorrt_library.cache_clear()
    with pytest.raises(BackendUnavailable, match="pip install tensorrt"):
        build_plan(tmp_path / "absent.onnx", options(rtx=False))


def test_a_jetsons_library_that_a_venv_hides_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr("edgekd.runtime.tensorrt_library.is_jetson", lambda: True)
    tensorrt_library.cache_clear()
    with pytest.raises(BackendUnavailable, match="JetPack brings it .* python3 -m venv --system-site-packages"):
        build_plan(tmp_path / "absent.onnx", options(rtx=False))


def test_type_stubs_alone_are_no_library(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())
    tensorrt_library.cache_clear()
    with pytest.raises(BackendUnavailable, match="only an empty package"):
        build_plan(tmp_path / "absent.onnx", options(rtx=False))


class Recorder:
    """Stands in for a TensorRT module: every attribute exists, is callable, and notes its calls and assignments."""

    def __init__(self, name, calls):
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_calls", calls)

    def __getattr__(self, name):
        return Recorder(f"{self._name}.{name}", self._calls)

    def __setattr__(self, name, value):
        self._calls.append((f"{self._name}.{name}", value))

    def __call__(self, *arguments):
        self._calls.append((self._name, *arguments))
        return Recorder(self._name, self._calls)


def layer(name, kind, dtype, calls):
    """A network layer with one output."""

    class Layer(Recorder):
        num_outputs = 1

        def get_output(self, index):
            return SimpleNamespace(dtype=dtype)

    made = Layer(name, calls)
    object.__setattr__(made, "name", name)
    object.__setattr__(made, "type", kind)
    return made


class FakeTensorRt:
    """A stand-in for `tensorrt` of one branch: it takes a graph and says "plan"; nothing is built."""

    ILogger = type(
        "ILogger", (), {"Severity": SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3, VERBOSE=4)}
    )
    DataType = SimpleNamespace(FLOAT="float", INT32="int32")
    LayerType = SimpleNamespace(SOFTMAX="softmax", NORMALIZATION="norm", REDUCE="reduce", CONVOLUTION="conv")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    PreviewFeature = SimpleNamespace(PROFILE_SHARING_0806="profile sharing")

    def __init__(self, branch, plan=b"plan", cache_fits=True):
        old = {"FP16": "fp16", "INT8": "int8", "OBEY_PRECISION_CONSTRAINTS": "obey"}
        self.BuilderFlag = SimpleNamespace(TF32="tf32", **({} if branch == "Plain" else old))
        flags = {"ExplicitBatch": {"EXPLICIT_BATCH": 0}, "StronglyTyped": {"STRONGLY_TYPED": 1}, "Plain": {}}[branch]
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags)
        self.calls = []
        self.plan, self.cache_fits, self.parsed = plan, cache_fits, None
        self.layers = [
            layer("conv", "conv", "float", self.calls),
            layer("softmax", "softmax", "float", self.calls),
            layer("shape_sum", "reduce", "int32", self.calls),
        ]

    def Builder(self, logger):
        outer = self

        class Builder(Recorder):
            def build_serialized_network(self, network, config):
                return outer.plan

            def create_network(self, flags):
                outer.calls.append(("create_network", flags))
                return SimpleNamespace(
                    num_layers=3,
                    get_layer=lambda index: outer.layers[index],
                    num_inputs=1,
                    get_input=lambda index: INPUT,
                )

            def create_builder_config(self):
                return Config("config", outer.calls)

        class Config(Recorder):
            def create_timing_cache(self, content):
                outer.calls.append(("create_timing_cache", content))
                return SimpleNamespace(serialize=lambda: b"measured")

            def set_timing_cache(self, cache, ignore_mismatch):
                return outer.cache_fits

        return Builder("builder", self.calls)

    def OnnxParser(self, network, logger):
        def parse(content):
            self.parsed = onnx.load_from_string(content)
            return True

        return SimpleNamespace(parse=parse)


INPUT = SimpleNamespace(name="x", shape=(1, 8, 16))


@pytest.fixture
def fake(monkeypatch):
    """Install a stand-in for one branch, on a machine that seems to have an SM 8.7 GPU."""

    def install(branch, **behaviour):
        trt = FakeTensorRt(branch, **behaviour)
        monkeypatch.setitem(sys.modules, "tensorrt", trt)
        monkeypatch.setattr("edgekd.deploy.tensorrt_versions.present_compute_capability", lambda: "8.7")
        tensorrt_library.cache_clear()
        return trt

    yield install
    tensorrt_library.cache_clear()


def device_options(precision="fp16", **changes):
    return options(precision, **{"rtx": False, "compute_capability": None} | changes)


def is_float16(model):
    return any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)


@pytest.mark.parametrize(
    ("branch", "network_flags", "float16_in_graph"),
    [("ExplicitBatch", 1 << 0, False), ("StronglyTyped", 1 << 1, True), ("Plain", 0, True)],
)
def test_each_branch_lowers_floats_in_its_own_way(branch, network_flags, float16_in_graph, fake, tmp_path):
    trt = fake(branch)
    assert build_plan(saved("attention", tmp_path), device_options()) == b"plan"
    assert ("create_network", network_flags) in trt.calls
    assert is_float16(trt.parsed) == float16_in_graph
    flags = [arguments for name, *arguments in trt.calls if name == "config.set_flag"]
    assert flags == ([] if float16_in_graph else [["fp16"], ["obey"]])


def test_old_tensorrt_holds_float_islands_and_pins_only(fake, tmp_path):
    trt = fake("ExplicitBatch")
    build_plan(saved("attention", tmp_path), device_options())
    assert ("softmax.precision", "float") in trt.calls
    assert ("softmax.set_output_type", 0, "float") in trt.calls
    assert not any(name.startswith(("conv.", "shape_sum.")) for name, *_ in trt.calls)
    trt = fake("ExplicitBatch")
    build_plan(saved("convolution", tmp_path), device_options(fp32_nodes=("conv",)))
    assert ("conv.precision", "float") in trt.calls


def test_old_tensorrt_needs_both_flags_for_int8(fake, tmp_path):
    trt = fake("ExplicitBatch")
    build_plan(saved("quantized_convolution", tmp_path), device_options("int8"))
    assert [arguments for name, *arguments in trt.calls if name == "config.set_flag"] == [["fp16"], ["int8"], ["obey"]]


def test_old_tensorrt_shares_its_profile_and_reads_its_own_words(fake, tmp_path):
    for branch, shared, opset in (("ExplicitBatch", True, 17), ("StronglyTyped", False, None), ("Plain", False, None)):
        trt = fake(branch)
        build_plan(saved("attention", tmp_path), device_options("fp32"))
        calls = [arguments for name, *arguments in trt.calls if name == "config.set_preview_feature"]
        assert calls == ([["profile sharing", True]] if shared else [])
        assert opset is None or trt.parsed.opset_import[0].version <= opset


@pytest.mark.parametrize("branch", ["ExplicitBatch", "StronglyTyped", "Plain"])
def test_fp32_is_float32_without_tf32(branch, fake, tmp_path):
    trt = fake(branch)
    build_plan(saved("attention", tmp_path), device_options("fp32", workspace_bytes=5, optimization_level=3))
    assert not is_float16(trt.parsed)
    assert ("config.clear_flag", "tf32") in trt.calls
    assert ("config.set_memory_pool_limit", "workspace", 5) in trt.calls
    assert ("config.builder_optimization_level", 3) in trt.calls
    assert not any(name == "config.set_flag" for name, *_ in trt.calls)


def test_timing_cache_is_read_and_replaced(fake, tmp_path):
    cache = tmp_path / "caches" / "timing"
    trt = fake("Plain")
    build_plan(saved("attention", tmp_path), device_options(timing_cache=cache))
    assert ("create_timing_cache", b"") in trt.calls
    assert cache.read_bytes() == b"measured"
    trt = fake("Plain")
    build_plan(saved("attention", tmp_path), device_options(timing_cache=cache))
    assert ("create_timing_cache", b"measured") in trt.calls
    assert [path.name for path in cache.parent.iterdir()] == ["timing"]


def test_a_failed_build_leaves_the_timing_cache(fake, tmp_path):
    cache = tmp_path / "timing"
    cache.write_bytes(b"old")
    fake("Plain", plan=None)
    with pytest.raises(BuildError, match="cannot build the engine"):
        build_plan(saved("attention", tmp_path), device_options(timing_cache=cache))
    fake("Plain", cache_fits=False)
    with pytest.raises(BuildError, match="refuses the timing cache"):
        build_plan(saved("attention", tmp_path), device_options(timing_cache=cache))
    assert cache.read_bytes() == b"old"


def test_tensorrt_builds_only_for_the_gpu_at_hand(fake, monkeypatch, tmp_path):
    fake("Plain")
    path = saved("attention", tmp_path)
    with pytest.raises(BuildError, match=r"8.9 was asked for and this GPU has 8.7"):
        build_plan(path, device_options(compute_capability="8.9"))
    assert build_plan(path, device_options(compute_capability="8.7")) == b"plan"
    monkeypatch.setattr("edgekd.deploy.tensorrt_versions.present_compute_capability", lambda: None)
    with pytest.raises(BackendUnavailable, match="on the GPU that will run it .* --backend tensorrt-rtx --sm 89"):
        build_plan(path, device_options())
