"""What a TensorRT build does before it calls the library: `build_bundle` with a stand-in that keeps the graphs it gets.

    python benchmarks/onnx_side.py [--versions 8.6.1,10.3.0,11.0.0]

Prints one JSON object: version -> stage -> numbers of operators, types of the weights, and a hash of nodes and
weights. `device_root.py` runs it in a root file system of 64-bit Arm and here, and compares the two. It needs the extra
`device`.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import onnx

from edgekd.deploy import build, tensorrt_versions
from edgekd.deploy.build_options import BuildOptions
from edgekd.package_files import default_models
from edgekd.runtime.tensorrt_library import tensorrt_library

GPU = "8.7"
"""The compute capability of the GPU that the stand-in has: that of an Orin."""


class Recorder(types.ModuleType):
    """The module `tensorrt` of one version, as far as a build calls it; the builder returns a plan of one byte."""

    ILogger = type("ILogger", (), {"Severity": types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)})
    MemoryPoolType = types.SimpleNamespace(WORKSPACE=0)
    PreviewFeature = types.SimpleNamespace(PROFILE_SHARING_0806=0)
    LayerType = types.SimpleNamespace(SOFTMAX=0, NORMALIZATION=1, REDUCE=2)
    DataType = types.SimpleNamespace(FLOAT=0)

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__version__, self.graphs = version, []  # type: ignore[var-annotated]
        old = {} if version.startswith("11") else {"FP16": 1, "INT8": 2, "OBEY_PRECISION_CONSTRAINTS": 3}
        typed = {"STRONGLY_TYPED": 1} if version.startswith("10") else {}
        self.BuilderFlag = types.SimpleNamespace(TF32=0, **old)
        self.NetworkDefinitionCreationFlag = types.SimpleNamespace(EXPLICIT_BATCH=0, **typed)

    def Builder(self, logger: Any) -> Any:  # noqa: N802
        """Return the builder, which makes everything else."""
        config = types.SimpleNamespace(add_optimization_profile=lambda profile: 0)
        for name in ("set_flag", "clear_flag", "set_memory_pool_limit", "set_preview_feature"):
            setattr(config, name, lambda *words: None)
        return types.SimpleNamespace(
            create_network=lambda flags: types.SimpleNamespace(num_layers=0),
            create_builder_config=lambda: config,
            create_optimization_profile=lambda: types.SimpleNamespace(set_shape=lambda *words: None),
            build_serialized_network=lambda network, config: b"-",
        )

    def OnnxParser(self, network: Any, logger: Any) -> Any:  # noqa: N802
        """Return the parser, which keeps the graph and tells the network its inputs."""

        def parse(content: bytes) -> bool:
            model = onnx.load_from_string(content)
            self.graphs.append(model)
            network.num_inputs = len(model.graph.input)
            network.get_input = lambda index: types.SimpleNamespace(
                name=model.graph.input[index].name,
                shape=tuple(axis.dim_value or -1 for axis in model.graph.input[index].type.tensor_type.shape.dim),
            )
            return True

        return types.SimpleNamespace(parse=parse, num_errors=0)


def graphs_of(version: str) -> dict[str, Any]:
    """Build the shipped models in fp16 and describe the graph of every stage."""
    recorder = Recorder(version)
    sys.modules["tensorrt"] = recorder
    tensorrt_library.cache_clear()
    tensorrt_versions.present_compute_capability = lambda: GPU
    with tempfile.TemporaryDirectory() as folder:
        options = BuildOptions(backend="tensorrt", precision="fp16", known_answer=False)
        manifest = build.build_bundle(default_models(), Path(folder) / "bundle", options)
    return {name: described(model) for name, model in zip(manifest.stages, recorder.graphs, strict=True)}


def described(model: onnx.ModelProto) -> dict[str, Any]:
    """Return what the parser was given: operators, types of weights, and a hash of both with the weights' values."""
    digest = hashlib.sha256()
    for node in model.graph.node:
        digest.update(repr((node.op_type, list(node.input), list(node.output))).encode())
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        digest.update(repr((tensor.name, list(tensor.dims), tensor.data_type)).encode())
        digest.update(onnx.numpy_helper.to_array(tensor).tobytes())
    kinds = collections.Counter(onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer)
    operators = collections.Counter(node.op_type for node in model.graph.node)
    return {"operators": dict(sorted(operators.items())), "weights": dict(sorted(kinds.items())),
            "sha256": digest.hexdigest()}  # fmt: skip


def main() -> None:
    """Print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", default="8.6.1,10.3.0,11.0.0", help="of TensorRT")
    print(json.dumps({version: graphs_of(version) for version in parser.parse_args().versions.split(",")}))


if __name__ == "__main__":
    main()
