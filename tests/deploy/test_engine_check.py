"""A wrong engine never becomes a bundle in silence: its stage goes to fp32, or the build fails with exit code 3."""

from __future__ import annotations

import shutil

import fake_builder
import host_cuda
import pytest
from small_models import write_small_models

from edgekd.bundle import read_manifest, write_manifest
from edgekd.deploy import engine_check
from edgekd.deploy.build import BuildOptions
from edgekd.errors import GateFailed
from edgekd.measure.parity import ParityReport
from edgekd.runtime import cuda
from edgekd.runtime.tensorrt_library import tensorrt_library

OPTIONS = BuildOptions(backend="tensorrt", precision="fp32", box_buckets=(1, 16))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return write_small_models(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture
def fake(monkeypatch):
    made = fake_builder.use_building_tensorrt(monkeypatch, host_cuda.use_host_cuda(monkeypatch))
    yield made
    cuda.open_cuda.cache_clear()
    tensorrt_library.cache_clear()


def spoil(monkeypatch, network_input: str) -> None:
    """Make the stand-in compute the network with this last input wrong: its first output has the other sign."""
    right = host_cuda.Context._compute

    def wrong(self, addresses, shapes, scratch, argument):
        right(self, addresses, shapes, scratch, argument)
        inputs = [tensor.name for tensor in self.engine.plan.tensors if tensor.profile]
        if inputs[-1] == network_input:
            output = self.engine.plan.tensors[len(inputs)]
            host_cuda.view(addresses[output.name], host_cuda.DTYPES[output.dtype], shapes[output.name])[...] *= -1

    monkeypatch.setattr(host_cuda.Context, "_compute", wrong)


def test_a_right_engine_is_measured_and_said(models, fake, tmp_path):
    lines = []
    manifest = engine_check.build_checked(models, tmp_path / "bundle", OPTIONS, lines.append)
    words = "engines: agreement with ONNX Runtime: boxes 1.0000, embeddings 1.0000, masks "
    assert manifest.notes[-2].startswith(words) and float(manifest.notes[-2].removeprefix(words)) > 0.999
    assert manifest.notes[-1].startswith("pictures: prepared on the host, the CUDA driver cannot be loaded")
    assert read_manifest(tmp_path / "bundle") == manifest
    assert not any("disagrees" in line for line in lines)


def test_a_stage_that_is_wrong_in_fp32_fails(models, fake, monkeypatch, tmp_path):
    spoil(monkeypatch, "boxes")
    with pytest.raises(GateFailed, match="the decoder that tensorrt built disagrees .* in fp32 too") as caught:
        engine_check.build_checked(models, tmp_path / "bundle", OPTIONS)
    assert caught.value.exit_code == 3
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "stage"),
    [({"box_match": 0.5}, "detector"), ({"embedding_cosine": 0.5, "mask_iou": 0.1}, "encoder"),
     ({"mask_iou": 0.1}, "decoder")],
)  # fmt: skip
@pytest.mark.parametrize("is_cured", [True, False])
def test_the_stage_that_disagrees_in_fp16_is_built_in_fp32(
    bad, stage, is_cured, models, shipped_bundle, monkeypatch, tmp_path
):
    """The builds are stood in for by copies of a bundle; what is asked for and written is the real thing."""
    good = {"n_images": 1, "n_boxes": 2, "n_masks": 1, "box_match": 1.0, "embedding_cosine": 1.0, "mask_iou": 1.0}
    reports = iter([good | bad, good if is_cured else good | bad])
    asked = []

    def build(models, destination, options, report=None):
        asked.append(options)
        shutil.copytree(shipped_bundle, destination, dirs_exist_ok=True)
        stages = {
            name: entry.model_copy(update={"precision": options.choices[name].precision if options.choices else "fp16"})
            for name, entry in read_manifest(shipped_bundle).stages.items()
        }
        manifest = read_manifest(shipped_bundle).model_copy(update={"stages": stages, "notes": ("a", "b", "c")})
        write_manifest(destination, manifest)
        return manifest

    monkeypatch.setattr(engine_check, "build_bundle", build)
    monkeypatch.setattr(engine_check, "compare_engines", lambda a, b: ParityReport.model_validate(next(reports)))
    monkeypatch.setattr(engine_check, "pictures_of", lambda bundle: "pictures: prepared on the host")
    if not is_cured:
        with pytest.raises(GateFailed, match=f"the {stage} that tensorrt built disagrees"):
            engine_check.build_checked(models, tmp_path / "bundle", OPTIONS)
        assert list(tmp_path.iterdir()) == []
        return
    manifest = engine_check.build_checked(models, tmp_path / "bundle", OPTIONS)
    expected = {name: "fp32" if name == stage else "fp16" for name in ("detector", "encoder", "decoder")}
    assert {name: entry.precision for name, entry in manifest.stages.items()} == expected
    assert asked[-1].choices[stage].reason.startswith("because its fp16 engine disagreed with ONNX Runtime (")
    assert [options.backend for options in asked] == ["tensorrt", "onnxruntime", "tensorrt"]


def test_rtx_without_a_gpu_says_that_nothing_was_compared(models, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(engine_check, "compute_capability", lambda: None)
    monkeypatch.setattr(engine_check, "build_bundle", lambda *arguments: asked.append(arguments))
    engine_check.build_checked(models, tmp_path / "bundle", BuildOptions(backend="tensorrt-rtx"))
    assert asked[0][2].notes == ("engines: not compared with ONNX Runtime, because this machine shows no GPU",)
