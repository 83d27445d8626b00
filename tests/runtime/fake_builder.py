"""The building half of the stand-in for TensorRT: a graph and a profile go in, a fake plan of the same graph comes out.

`use_building_tensorrt` makes `import tensorrt` give a module that builds and runs, so that `build_bundle`, `Chain`,
`bench` and `evaluate` work as on a device. Scratch memory is that which TensorRT-RTX's builder said for the default
models at 1024 px in fp16: encoder 84 MB, detector 37 MB, decoder 13.2 MB for each box; for the crop network it is a
guess.
"""

from __future__ import annotations

from types import SimpleNamespace

import fake_plan
import host_cuda
import onnx

from edgekd.runtime.tensorrt_library import tensorrt_library

SCRATCH = {"images": (37_000_000, 0), "image": (84_000_000, 0), "boxes": (0, 13_220_000), "crops": (0, 1_000_000)}
OLD_FLAGS = {"FP16": "fp16", "INT8": "int8", "OBEY_PRECISION_CONSTRAINTS": "obey"}


class BuildingTensorRt(host_cuda.FakeTensorRt):
    """The module `tensorrt` of one version; `scale_px` below 1024 shrinks the scratch memory with the input."""

    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    PreviewFeature = SimpleNamespace(PROFILE_SHARING_0806="profile sharing")
    DataType = SimpleNamespace(FLOAT="float")
    LayerType = SimpleNamespace(SOFTMAX="softmax", NORMALIZATION="norm", REDUCE="reduce")

    def __init__(self, cudart, version="10.3.0", scratch=None):
        super().__init__(cudart, version)
        self.is_old = version.startswith("8.")
        self.scratch = scratch or dict.fromkeys(SCRATCH, (65536, 4096))
        self.BuilderFlag = SimpleNamespace(TF32="tf32", **({} if version.startswith("11") else OLD_FLAGS))
        flags = {"8": {"EXPLICIT_BATCH": 0}, "10": {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}, "11": {}}
        self.NetworkDefinitionCreationFlag = SimpleNamespace(**flags[version.split(".")[0]])

    def Builder(self, logger):
        return _Builder(self)

    def OnnxParser(self, network, logger):
        def parse(content):
            network.take(onnx.load_from_string(content))
            return True

        return SimpleNamespace(parse=parse, num_errors=0)


class _Network:
    num_layers = 0

    def take(self, model):
        self.model = model
        self.inputs = [SimpleNamespace(name=value.name, shape=fake_plan.shape_of(value)) for value in model.graph.input]
        self.num_inputs = len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]


class _Builder:
    def __init__(self, trt):
        self.trt = trt

    def create_network(self, flags):
        return _Network()

    def create_builder_config(self):
        config = SimpleNamespace(profile={}, shares=not self.trt.is_old)
        config.set_flag = config.clear_flag = lambda flag: None
        config.set_memory_pool_limit = lambda pool, n_bytes: None
        config.set_preview_feature = lambda feature, wanted: setattr(config, "shares", wanted)
        config.add_optimization_profile = lambda profile: config.profile.update(profile.shapes) or 0
        return config

    def create_optimization_profile(self):
        shapes = {}
        return SimpleNamespace(shapes=shapes, set_shape=lambda name, *sizes: shapes.update({name: sizes}))

    def build_serialized_network(self, network, config):
        scratch = next(self.trt.scratch[tensor.name] for tensor in network.inputs if tensor.name in self.trt.scratch)
        return fake_plan.write_plan(network.model, config.profile, scratch, config.shares)


def use_building_tensorrt(monkeypatch, cudart, version="10.3.0", scratch=None) -> BuildingTensorRt:
    """Make `import tensorrt` give a module that builds and runs on the host."""
    fake = BuildingTensorRt(cudart, version, scratch)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake)
    tensorrt_library.cache_clear()
    return fake
