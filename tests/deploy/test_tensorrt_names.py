"""Every TensorRT name that the package uses exists in every version where its branch uses it.

The real Python bindings of nine releases are imported, one process each, against stub libraries compiled here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fetch_tensorrt_bindings
import tensorrt_names

BRANCHES = {"8": "ExplicitBatch", "10": "StronglyTyped", "11": "Plain", "1": "Rtx"}
MEMORIES = {"8.6.1": "OldMemory", "10.0.1": "OldMemory", "1.7.1.116": "RtxMemory"}
LIBRARIES = {
    "8": ("nvinfer.so.8", "nvonnxparser.so.8", "nvinfer_plugin.so.8", "nvparsers.so.8"),
    "10": ("nvinfer.so.10", "nvonnxparser.so.10", "nvinfer_plugin.so.10"),
    "11": ("nvinfer.so.11", "nvonnxparser.so.11", "nvinfer_plugin.so.11"),
    "1": ("tensorrt_rtx.so.1", "tensorrt_onnxparser_rtx.so.1"),
}


@pytest.fixture(scope="module")
def stub_folder(tmp_path_factory):
    """Stub libraries of all majors, under the names that the bindings are linked to."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stub libraries")
    folder = tmp_path_factory.mktemp("stubs")
    source = Path(__file__).with_name("tensorrt_stub.c")
    for name in {name for names in LIBRARIES.values() for name in names}:
        target = folder / f"lib{name}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,lib{name}", "-o", str(target), str(source)]
        subprocess.run(command, check=True)
    return folder


def unpacked(version, folder):
    """Unpack a release's bindings, downloading them when they are not in the cache."""
    default = Path.home() / ".cache" / "edgekd" / "tensorrt-wheels"
    cache = Path(os.environ.get("EDGEKD_TENSORRT_WHEELS", default))
    wheel = fetch_tensorrt_bindings.wheel_of(version, cache)
    if wheel is None:
        failure = fetch_tensorrt_bindings.fetch(version, cache)
        if failure:
            pytest.skip(f"TensorRT {version} is not in {cache.name} and cannot be downloaded: {failure}")
        wheel = fetch_tensorrt_bindings.wheel_of(version, cache)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


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
