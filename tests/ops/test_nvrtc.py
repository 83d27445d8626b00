"""Cubins without a GPU: machine code of the hot kernels, the manifest, and architectures nobody targets."""

import hashlib
import json
import re

import pytest

from edgekd.errors import BackendUnavailable, BuildError, InputError
from edgekd.ops import _nvrtc
from edgekd.ops._cpu_build import kernel_sources_dir
from edgekd.ops._nvrtc import compile_ahead, parse_sms


@pytest.fixture(scope="module")
def nvrtc():
    try:
        return _nvrtc.load_nvrtc()
    except BackendUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("sm", [87, 89, 90])
def test_hot_kernels_move_sixteen_bytes_without_spilling(nvrtc, kernel_code, sm):
    code = kernel_code(_nvrtc.compile_cubin(nvrtc, kernel_sources_dir(), sm))
    expected = {"analysis": (4, 4), "synthesis": (4, 4), "loss": (8, 0), "gradient": (8, 4)}
    for what, (n_loads, n_stores) in expected.items():
        for variant in ("f32_4", "f16_8", "bf16_8"):
            text = code[f"edgekd_{what}_{variant}"]
            assert len(re.findall(r"\bLDG\.E\.128", text)) == n_loads, (what, variant)
            assert len(re.findall(r"\bSTG\.E\.128", text)) == n_stores, (what, variant)
            assert not re.search(r"\b(STL|LDL)\b", text), (what, variant)


def test_manifest_names_every_cubin(nvrtc, tmp_path):
    manifest = json.loads(compile_ahead([89], tmp_path).read_text())
    (entry,) = manifest["cubins"]
    assert (entry["sm"], entry["nvrtc"]) == (89, _nvrtc.version_text(nvrtc))
    assert hashlib.sha256((tmp_path / entry["file"]).read_bytes()).hexdigest() == entry["sha256"]


def test_an_architecture_nobody_targets_is_named_and_nothing_is_written(nvrtc, tmp_path):
    with pytest.raises(InputError, match=r"no compiler here targets sm_35 \(NVRTC .*; give an older .* --nvrtc FILE"):
        compile_ahead([89, 35], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_does_not_compile_shows_the_log(nvrtc, tmp_path):
    csrc = tmp_path / "csrc"
    csrc.mkdir()
    for path in _nvrtc.cuda_sources(kernel_sources_dir()):
        (csrc / path.name).write_bytes(path.read_bytes())
    (csrc / "haar_dwt.cuh").write_text("#error broken on purpose")
    with pytest.raises(BuildError, match="broken on purpose"):
        _nvrtc.compile_cubin(nvrtc, tmp_path, 89)


def test_a_compiler_that_is_not_there(tmp_path):
    with pytest.raises(BackendUnavailable, match="run-time compiler is not here"):
        _nvrtc.load_nvrtc(tmp_path / "libnvrtc.so")


def test_lists_of_architectures():
    assert parse_sms("72, 87,87") == [72, 87]
    for bad in ("", "8.7", "sm_87"):
        with pytest.raises(InputError, match="without a dot, such as 72,87,89"):
            parse_sms(bad)
