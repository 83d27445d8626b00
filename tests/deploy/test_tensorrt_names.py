"""Every TensorRT name that the package uses exists in every version where its branch uses it.

The real Python bindings of nine releases are imported, one process each, against stub libraries compiled here.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fetch_tensorrt_bindings
import tensorrt_names
from tensorrt_wheels import LIBRARIES, unpacked

BRANCHES = {"8": "ExplicitBatch", "10": "StronglyTyped", "11": "Plain", "1": "Rtx"}
MEMORIES = {"8.6.1": "OldMemory", "10.0.1": "OldMemory", "1.7.1.116": "RtxMemory"}


@pytest.mark.tensorrt
@pytest.mark.parametrize("version", fetch_tensorrt_bindings.RELEASES)
def test_real_bindings_have_every_name(version, stub_folder, tmp_path):
    major = version.split(".")[0]
    package = "tensorrt_rtx_bindings" if major == "1" else "tensorrt_bindings"
    stubs = [str(stub_folder / f"lib{name}") for name in LIBRARIES[major]]
    script = str(Path(tensorrt_names.__file__))
    repository = str(tensorrt_names.PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, script, str(unpacked(version, tmp_path)), package, *stubs],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": repository},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == version
    assert found["branch"] == BRANCHES[major]
    assert found["memory"] == MEMORIES.get(version, "SizedMemory")
    assert found["missing"] == []
    assert found["checked"] > 50
    assert found["last_error"] == "a message in two lines"
    assert "cannot make a builder" in found["builder"]


def test_every_use_of_tensorrt_has_a_known_type():
    uses, gaps = tensorrt_names.collect_package()
    assert gaps == []
    names = {use.name for use in uses}
    # One name of each way in which an expression gets its type.
    assert {
        "BuilderFlag.TF32",
        "IBuilderConfig.set_memory_pool_limit",
        "IExecutionContext.execute_async_v3",
        "ICudaEngine.get_tensor_name",
        "Builder.build_serialized_network",
        "ILogger.Severity.INTERNAL_ERROR",
        "ILayer.precision",
        "__version__",
    } <= names
    assert {use.branch for use in uses} == {
        None, "StronglyTyped", "ExplicitBatch", "Rtx", "OldMemory", "SizedMemory", "RtxMemory"
    }  # fmt: skip


def test_no_other_file_imports_tensorrt():
    allowed = {path.resolve() for path in tensorrt_names.FILES}
    for path in tensorrt_names.PACKAGE.rglob("*.py"):
        if path.resolve() not in allowed:
            assert "import tensorrt" not in path.read_text() and "from tensorrt" not in path.read_text(), path


def test_a_name_that_a_version_lacks_is_found():
    source = """
from tensorrt import IBuilderConfig
class Plain:
    def common(self, trt, config: IBuilderConfig):
        config.int8_calibrator = None
class Old(Plain):
    def own(self, trt):
        return trt.BuilderFlag.FP16
"""
    uses = tensorrt_names.collect(source).uses
    new = SimpleNamespace(BuilderFlag=SimpleNamespace(), IBuilderConfig=SimpleNamespace())
    assert tensorrt_names.missing_in(new, uses, {"Plain"}) == ["source:5 trt.IBuilderConfig.int8_calibrator"]
    assert len(tensorrt_names.missing_in(new, uses, {"Old"})) == 2


def test_an_untyped_result_is_reported():
    source = """
from tensorrt import INetworkDefinition
def walk(network: INetworkDefinition):
    layer = network.get_layer(0)
    return layer.name, network.get_input(0).shape
"""
    gaps = tensorrt_names.collect(source).gaps
    assert [gap.split(":")[1].split()[0] for gap in gaps] == ["5", "5"]
