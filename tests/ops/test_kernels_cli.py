"""`edgekd kernels`: what it prints, and what it refuses."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekd.cli.kernels import app
from edgekd.errors import BackendUnavailable, EdgekdError, InputError
from edgekd.ops import _cpu_build


def run(*arguments):
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_info_names_the_choice_and_the_reasons(backend):
    output = run("info")
    assert "cpu: cpu" in output
    assert "triton: Triton takes CUDA tensors" in output


def test_check_passes_on_this_machine(backend):
    output = run("check", "--device", "cpu")
    assert "reference: 105 of 105 pass" in output
    assert "cpu: 105 of 105 pass" in output


def test_check_fails_when_a_kernel_is_wrong(backend, monkeypatch):
    from edgekd.ops import _cpu

    right = _cpu.analysis
    monkeypatch.setattr(_cpu, "analysis", lambda x, replicate: [-band for band in right(x, replicate)])
    with pytest.raises(EdgekdError, match="comparisons of the Haar kernels failed"):
        run("check", "--device", "cpu")


def test_bench_prints_ratios_after_the_check(backend):
    output = run("bench", "--device", "cpu", "--shape", "1,4,8,8")
    assert output.index("pass") < output.index("loss and gradient")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bench", "--shape", "8,256,80"), "expected four positive integers N,C,H,W"),
        (("check", "--device", "tpu"), "device is 'tpu', expected cpu or cuda"),
        (("compile", "--sm", "8.7"), "without a dot"),
    ],
)
def test_bad_options_are_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        run(*arguments)


def test_a_type_that_is_not_offered_is_a_usage_error():
    assert CliRunner().invoke(app, ["bench", "--dtype", "int8"]).exit_code == 2


def test_compile_writes_cubins(tmp_path):
    try:
        run("compile", "--sm", "87", "-o", str(tmp_path))
    except BackendUnavailable as error:
        pytest.skip(str(error))
    entries = json.loads((tmp_path / "manifest.json").read_text())["cubins"]
    assert [entry["sm"] for entry in entries] == [87, 87]  # wavelets, and pictures
    assert len({entry["file"] for entry in entries}) == 2


def test_compile_for_the_cpu(tmp_path, monkeypatch):
    if _cpu_build.find_compiler() is None:
        pytest.skip("no C++ compiler on this machine")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(_cpu_build, "FLAGS", ("-O0", *_cpu_build.FLAGS[1:]))  # seconds instead of half a minute
    library = Path(run("compile", "--cpu").replace("\n", ""))
    assert library.is_file() and library.is_relative_to(tmp_path)
