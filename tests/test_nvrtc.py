"""Cubins without a GPU: machine code of the hot kernels, the manifest, and architectures nobody targets."""

import hashlib
import json
import re

import pytest

from edgekd import nvrtc as compiler
from edgekd.errors import BackendUnavailable, BuildError, InputError
from edgekd.nvrtc import compile_ahead, cubin_for, kernel_sources_dir, parse_sms


@pytest.fixture(scope="module")
def nvrtc():
    try:
        return compiler.load_nvrtc()
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("sm", [87, 89, 90])
def test_hot_kernels_move_sixteen_bytes_without_spilling(nvrtc, kernel_code, sm):
    code = kernel_code(compiler.compile_cubin(nvrtc, kernel_sources_dir(), sm, "haar"))
    expected = {"analysis": (4, 4), "synthesis": (4, 4), "loss": (8, 0), "gradient": (8, 4)}
    for what, (n_loads, n_stores) in expected.items():
        for variant in ("f32_4", "f16_8", "bf16_8"):
            text = code[f"edgekd_{what}_{variant}"]
            assert len(re.findall(r"\bLDG\.E\.128", text)) == n_loads, (what, variant)
            assert len(re.findall(r"\bSTG\.E\.128", text)) == n_stores, (what, variant)
            assert not re.search(r"\b(STL|LDL)\b", text), (what, variant)


@pytest.mark.parametrize("sm", [87, 120])
def test_picture_kernels_load_and_store_sixteen_bytes_without_spilling(nvrtc, kernel_code, sm):
    code = kernel_code(compiler.compile_cubin(nvrtc, kernel_sources_dir(), sm, "picture"))
    assert set(code) >= {"edgekd_letterbox", "edgekd_crops"}
    for name, n_stores in (("edgekd_letterbox", 3), ("edgekd_crops", 0)):
        text = code[name]
        # Averaging and interpolating each stage rows; bytes alone are the last ones of the picture.
        assert len(re.findall(r"\bLDG\.E\.128", text)) == len(re.findall(r"\bSTS\.128", text)) == 2
        assert len(re.findall(r"\bLDG\.E\.U8", text)) == 2
        assert len(re.findall(r"\bSTG\.E\.128", text)) == n_stores
        assert not re.search(r"\b(STL|LDL)\b", text)
        assert not re.search(r"\bD(ADD|MUL|FMA)\b", text), "64-bit floats are slow on small devices"


def test_cubins_made_ahead_are_used_and_checked(nvrtc, tmp_path, monkeypatch):
    manifest = json.loads(compile_ahead([89], tmp_path).read_text())
    assert [(entry["sm"], entry["family"]) for entry in manifest["cubins"]] == [(89, "haar"), (89, "picture")]
    for entry in manifest["cubins"]:
        content = (tmp_path / entry["file"]).read_bytes()
        assert entry["nvrtc"] == compiler.version_text(nvrtc)
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    monkeypatch.setenv("EDGEKD_CUBINS", str(tmp_path))
    monkeypatch.setattr(compiler, "load_nvrtc", lambda path=None: pytest.fail("there is no compiler"))
    assert cubin_for(89, "picture") == content
    with pytest.raises(BackendUnavailable, match=r"no haar kernels of this edgekd for sm_87; make it with: edgekd ke"):
        cubin_for(87, "haar")
    (tmp_path / "picture_kernels.sm_89.cubin").write_bytes(content[:-1])
    with pytest.raises(BackendUnavailable, match="holds no picture kernels"):
        cubin_for(89, "picture")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BackendUnavailable, match="cannot be read"):
        cubin_for(89, "picture")


def test_an_architecture_nobody_targets_is_named_and_nothing_is_written(nvrtc, tmp_path):
    with pytest.raises(InputError, match=r"no compiler here targets sm_35 \(NVRTC .*; give an older .* as `nvrtc`"):
        compile_ahead([89, 35], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_does_not_compile_shows_the_log(nvrtc, tmp_path):
    csrc = tmp_path / "csrc"
    csrc.mkdir()
    for path in compiler.cuda_sources(kernel_sources_dir(), "haar"):
        (csrc / path.name).write_bytes(path.read_bytes())
    (csrc / "haar_dwt.cuh").write_text("#error broken on purpose")
    with pytest.raises(BuildError, match="broken on purpose"):
        compiler.compile_cubin(nvrtc, tmp_path, 89, "haar")


def test_a_compiler_that_is_not_there(tmp_path):
    with pytest.raises(BackendUnavailable, match="run-time compiler is not here"):
        compiler.load_nvrtc(tmp_path / "libnvrtc.so")


def test_lists_of_architectures():
    assert parse_sms("72, 87,87") == [72, 87]
    for bad in ("", "8.7", "sm_87"):
        with pytest.raises(InputError, match="without a dot, such as 72,87,89"):
            parse_sms(bad)
