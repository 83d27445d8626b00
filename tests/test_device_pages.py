"""The pages for devices are scripts: every fence parses, and what it installs exists. No device ran them."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import setuptools
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
PAGES = ("jetson.md", "desktop.md")


def fences(page: str) -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs" / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_every_fence_is_a_script(page: str) -> None:
    found = fences(page)
    assert len(found) >= 3
    for script in found:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_every_extra_and_file_exists(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, dict[str, object]] = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    for script in fences(page):
        for extras in re.findall(r"'\.\[([a-z,]+)\]'", script):
            assert set(extras.split(",")) <= set(told["extras_require"]), extras
        for program in re.findall(r"python (\S+\.py)", script):
            assert (ROOT / program).is_file()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_says_that_no_device_ran_it(page: str) -> None:
    text = " ".join((ROOT / "docs" / page).read_text().split())
    assert "Nothing on this page has run on a Jetson yet" in text or "No GPU has run this code yet" in text


def test_jetpack_5_is_refused_in_words_and_by_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its Python is 3.8 and its CMake 3.16: pip and CMake say so before anything fails in another way."""
    text = " ".join((ROOT / "docs" / "jetson.md").read_text().split())
    assert "JetPack 5 is not: its Python is 3.8, and its TensorRT 8.5 cannot read these graphs." in text
    told: dict[str, str] = {}
    monkeypatch.setattr(setuptools, "setup", told.update)
    runpy.run_path(str(ROOT / "setup.py"), run_name="__main__")
    assert not SpecifierSet(told["python_requires"]).contains("3.8.10")
    cmake = (ROOT / "edgekd" / "capi" / "CMakeLists.txt").read_text()
    found = re.search(r"cmake_minimum_required\(VERSION ([\d.]+)", cmake)
    assert found and tuple(map(int, found[1].split("."))) > (3, 16)
