"""What a machine says of itself, read from commands and files that are written here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekd import environment


@pytest.mark.parametrize(
    ("lines", "mode"),
    [
        (["NV Fan Mode:quiet", "NV Power Mode: 15W", "0"], "15W"),
        (["NVPM WARN: fan mode is not set!", "NV Power Mode: MAXN_SUPER", "2"], "MAXN_SUPER"),
        (["NV Fan Mode:quiet"], None),
        ([], None),
    ],
)
def test_the_power_mode_is_found_on_whatever_line_it_stands(
    lines: list[str], mode: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvpmodel"
    program.write_text("#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert environment.describe_machine().power_mode == mode


def test_a_jetson_is_known_by_its_linux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = tmp_path / "nv_tegra_release"
    monkeypatch.setattr(environment, "L4T_RELEASE", release)
    assert not environment.is_jetson()
    release.write_text("# R36 (release), REVISION: 4.3")
    assert environment.is_jetson()


@pytest.mark.parametrize(("isa", "saturates"), [
    (("avx2",), True), (("avx2", "avx512f"), True), (("avx2", "avx512f", "avx512_vnni"), False),
    (("avx2", "avx_vnni"), False), (("avx2", "amx_int8"), False), (("asimddp",), False), ((), False),
])  # fmt: skip
def test_which_processors_saturate(isa: tuple[str, ...], saturates: bool) -> None:
    assert environment.saturates_int8(isa) == saturates
